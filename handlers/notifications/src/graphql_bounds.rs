//! Limits the size of a GraphQL document before the GraphQL library executes it. The library expands every
//! fragment at each spread (`...name`), so a document of two kilobytes could keep it busy forever. This
//! module computes the same size quickly: it measures each fragment once, and adds that at each spread.
//! `graphql` parses the document and makes its structure for [`check`]; it refuses the document with the
//! error. Pure: it uses neither host calls nor the library, so plain `cargo test` runs it.
// In native builds only the tests use this module, because the schema is compiled only for wasm32.
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]

use std::collections::HashMap;

/// The tokens of a document. `graphql` refuses one with more unparsed. Every document within the other bounds
/// has fewer.
pub(crate) const TOKENS_MAX: usize = 6000;
/// Fields and spreads of all operations and fragments, with fragments expanded at each spread. The library
/// validates each of them.
pub(crate) const SELECTIONS_MAX: u64 = 2000;
/// Nested selection sets, with fragments expanded. The library recurses that deep on a stack of 64 KiB.
pub(crate) const NESTED_SETS_MAX: usize = 24;
/// Top-level fields of a query. Each list takes up to 8 of the 256 host calls of one call.
pub(crate) const QUERY_FIELDS_MAX: u64 = 20;
/// Top-level fields of a mutation. Each change takes up to 14 host calls.
pub(crate) const MUTATION_FIELDS_MAX: u64 = 10;
/// Notifications that all lists of an operation may return together.
pub(crate) const ROWS_MAX: u64 = 400;
/// The total weight of the values that an operation may return (see [`weight`]): about 4 MB.
pub(crate) const WEIGHT_MAX: u64 = 10_000;

/// The structure of a document.
#[derive(Debug, Default)]
pub(crate) struct Document<'a> {
    pub operations: Vec<Operation<'a>>,
    pub fragments: HashMap<&'a str, Vec<Selection<'a>>>,
}

#[derive(Debug)]
pub(crate) struct Operation<'a> {
    pub is_mutation: bool,
    pub selections: Vec<Selection<'a>>,
}

#[derive(Debug)]
pub(crate) enum Selection<'a> {
    Field {
        name: &'a str,
        /// For a list: the number of rows that it may return.
        rows: Option<u64>,
        selections: Vec<Selection<'a>>,
    },
    Inline(Vec<Selection<'a>>),
    Spread(&'a str),
}

/// The size of one value of a field, in units of about 400 bytes.
fn weight(field: &str) -> u64 {
    match field {
        // At most 8 KiB.
        "data" => 20,
        // At most 2000 characters.
        "body" => 5,
        _ => 1,
    }
}

/// The size of a selection set, with everything inside it.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// The fields of the set itself, with fragments expanded, and without the fields inside those.
    fields: u64,
    selections: u64,
    rows: u64,
    weight: u64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.fields = self.fields.saturating_add(other.fields);
        self.selections = self.selections.saturating_add(other.selections);
        self.rows = self.rows.saturating_add(other.rows);
        self.weight = self.weight.saturating_add(other.weight);
    }
}

/// Checks a document, including the operations that are not executed. The error is a sentence for its author
/// that names the exceeded bound.
pub(crate) fn check(document: &Document<'_>) -> Result<(), String> {
    let mut counter = Counter { fragments: &document.fragments, known: HashMap::new(), open: Vec::new() };
    let mut selections = 0_u64;
    for operation in &document.operations {
        let count = counter.set(&operation.selections, 1)?;
        selections = selections.saturating_add(count.selections);
        let (kind, fields_max) = if operation.is_mutation {
            ("mutation", MUTATION_FIELDS_MAX)
        } else {
            ("query", QUERY_FIELDS_MAX)
        };
        check_bound(&format!("fields of a {kind}"), count.fields, fields_max)?;
        check_bound("notifications of all lists", count.rows, ROWS_MAX)?;
        check_bound("values of the answer, by weight", count.weight, WEIGHT_MAX)?;
    }
    // The library also validates fragments that are never spread.
    for name in document.fragments.keys() {
        selections = selections.saturating_add(counter.fragment(name, 1)?.selections);
    }
    check_bound("fields and spreads, fragments expanded", selections, SELECTIONS_MAX)
}

fn check_bound(what: &str, count: u64, most: u64) -> Result<(), String> {
    if count > most {
        return Err(format!("the document asks for too much: {what}: {count}, at most {most}"));
    }
    Ok(())
}

struct Counter<'d, 'a> {
    fragments: &'d HashMap<&'a str, Vec<Selection<'a>>>,
    /// The count of each measured fragment, and its height: the number of nested sets in it.
    known: HashMap<&'d str, (Count, usize)>,
    /// The fragments that are being measured. A spread of one of them means that the fragment spreads itself.
    open: Vec<&'d str>,
}

impl<'d> Counter<'d, '_> {
    /// Counts a selection set of an operation. `depth` is the number of sets around it, and itself.
    fn set(&mut self, selections: &'d [Selection<'d>], depth: usize) -> Result<Count, String> {
        let mut deepest = depth;
        self.measure(selections, depth, &mut deepest)
    }

    /// Counts a selection set at this depth. Raises `deepest` to the depth of the deepest set in it.
    fn measure(
        &mut self,
        selections: &'d [Selection<'d>],
        depth: usize,
        deepest: &mut usize,
    ) -> Result<Count, String> {
        if depth > NESTED_SETS_MAX {
            let most = NESTED_SETS_MAX;
            return Err(format!(
                "the document is nested too deep: at most {most} selection sets within each other"
            ));
        }
        *deepest = (*deepest).max(depth);
        let mut all = Count::default();
        for selection in selections {
            match selection {
                Selection::Field { name, rows, selections } => {
                    let inner = self.measure(selections, depth + 1, deepest)?;
                    let each = weight(name).saturating_add(inner.weight);
                    all.add(Count {
                        fields: 1,
                        selections: inner.selections.saturating_add(1),
                        rows: inner.rows.saturating_add(rows.unwrap_or(0)),
                        weight: each.saturating_mul(rows.unwrap_or(1).max(1)),
                    });
                }
                Selection::Inline(selections) => all.add(self.measure(selections, depth + 1, deepest)?),
                Selection::Spread(name) => {
                    all.add(Count { selections: 1, ..Count::default() });
                    all.add(self.spread(name, depth, deepest)?);
                }
            }
        }
        Ok(all)
    }

    /// Counts a fragment as if it were spread at this depth.
    fn fragment(&mut self, name: &str, depth: usize) -> Result<Count, String> {
        let mut deepest = depth;
        self.spread(name, depth, &mut deepest)
    }

    /// Counts the fragment of a spread in a set at this depth. Only its first spread measures a fragment.
    fn spread(&mut self, name: &str, depth: usize, deepest: &mut usize) -> Result<Count, String> {
        // The library refuses an unknown fragment.
        let Some((name, selections)) = self.fragments.get_key_value(name) else {
            return Ok(Count::default());
        };
        let (count, height) = match self.known.get(name) {
            Some(known) => *known,
            None if self.open.contains(name) => {
                return Err(format!("the fragment `{name}` spreads itself"));
            }
            None => {
                self.open.push(name);
                let mut reached = depth;
                let count = self.measure(selections, depth + 1, &mut reached)?;
                self.open.pop();
                self.known.insert(name, (count, reached - depth));
                (count, reached - depth)
            }
        };
        if depth + height > NESTED_SETS_MAX {
            let most = NESTED_SETS_MAX;
            return Err(format!(
                "the document is nested too deep: at most {most} selection sets within each other"
            ));
        }
        *deepest = (*deepest).max(depth + height);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<'a>(name: &'a str, selections: Vec<Selection<'a>>) -> Selection<'a> {
        Selection::Field { name, rows: None, selections }
    }

    fn list(first: u64, fields: &[&'static str]) -> Selection<'static> {
        let leaves = fields.iter().map(|name| field(name, Vec::new())).collect();
        Selection::Field {
            name: "notifications",
            rows: Some(first),
            selections: vec![field("nodes", leaves)],
        }
    }

    fn of(is_mutation: bool, selections: Vec<Selection<'_>>) -> Document<'_> {
        Document { operations: vec![Operation { is_mutation, selections }], fragments: HashMap::new() }
    }

    #[track_caller]
    fn refused(document: &Document<'_>, why: &str) {
        let refusal = check(document).expect_err("more than the bounds");
        assert!(refusal.contains(why), "{refusal}");
    }

    #[test]
    fn a_usual_document_is_accepted() {
        let everything = ["id", "userId", "type", "level", "title", "body", "data", "readAt", "createdAt"];
        check(&of(false, vec![list(100, &everything), list(20, &everything)])).unwrap();
        check(&of(true, (0..10).map(|_| field("deleteNotification", Vec::new())).collect())).unwrap();
    }

    #[test]
    fn fragments_that_double_at_each_step_are_counted_without_being_expanded() {
        let names: Vec<String> = (0..20).map(|n| format!("f{n}")).collect();
        let mut document = of(false, vec![Selection::Spread("f0")]);
        for (n, name) in names.iter().enumerate() {
            let inside = match names.get(n + 1) {
                Some(next) => vec![Selection::Spread(next), Selection::Spread(next)],
                None => vec![field("__typename", Vec::new())],
            };
            document.fragments.insert(name, inside);
        }
        // The expansion has 2^19 fields.
        refused(&document, "fields of a query: 524288, at most 20");
        // The fragments are below a list, not at the top level.
        document.operations[0].selections = vec![field("notifications", vec![Selection::Spread("f0")])];
        refused(&document, "by weight");
        // The fragments are never spread.
        document.operations[0].selections = vec![field("__typename", Vec::new())];
        refused(&document, "fragments expanded");
    }

    #[test]
    fn a_chain_of_fragments_that_would_overflow_the_stack_is_refused() {
        let names: Vec<String> = (0..500).map(|n| format!("f{n}")).collect();
        let mut document = of(false, vec![Selection::Spread("f0")]);
        for pair in names.windows(2) {
            document.fragments.insert(&pair[0], vec![Selection::Spread(&pair[1])]);
        }
        refused(&document, "nested too deep");
    }

    #[test]
    fn a_fragment_that_spreads_itself_is_refused() {
        let mut document = of(false, vec![Selection::Spread("a")]);
        document.fragments.insert("a", vec![Selection::Spread("b")]);
        document.fragments.insert("b", vec![field("x", vec![Selection::Spread("a")])]);
        refused(&document, "spreads itself");
        check(&of(false, vec![Selection::Spread("unknown")])).unwrap();
    }

    #[test]
    fn aliases_and_rows_are_bounded() {
        refused(
            &of(false, (0..100).map(|_| list(1, &["id"])).collect()),
            "fields of a query: 100, at most 20",
        );
        let deletions = (0..500).map(|_| field("deleteNotification", Vec::new())).collect();
        refused(&of(true, deletions), "fields of a mutation: 500, at most 10");
        refused(&of(false, (0..5).map(|_| list(100, &["id"])).collect()), "notifications of all lists: 500");
        // The heaviest field of each row under fifty names.
        refused(&of(false, vec![list(100, &["data"; 50])]), "by weight");
    }
}
