//! Declarations of the contract for TypeScript, made from the WIT. Each interface is a module with the name
//! by which a component imports it. They follow the mapping of ComponentizeJS: a `result` is returned or
//! thrown, an absent `option` is `undefined`, integers of 64 bits are `bigint`, and lists of numbers are
//! typed arrays.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use wit_parser::{
    Docs, Function, FunctionKind, Handle, InterfaceId, PackageId, Resolve, SourceMap, Type, TypeDef,
    TypeDefKind, TypeId, TypeOwner, WorldItem,
};

use crate::embedded;

/// The whole file of declarations.
pub(super) fn file() -> String {
    let modules: Vec<_> = modules().into_iter().map(|(_, text)| text).collect();
    format!(
        "// The contract between host and handler, for a component in TypeScript. `switchboard wit --as typescript` \
         writes\n// this file; do not edit it.\n\n{}",
        modules.join("\n")
    )
}

/// The declaration of each interface, with its name, in the order of the names.
pub(super) fn modules() -> Vec<(String, String)> {
    let (resolve, package) = contract();
    let worlds = resolve.packages[package].worlds.values();
    let exports = worlds.flat_map(|world| resolve.worlds[*world].exports.values());
    let exported: HashSet<InterfaceId> = exports
        .filter_map(|item| match item {
            WorldItem::Interface { id, .. } => Some(*id),
            _ => None,
        })
        .collect();
    let mut modules: Vec<_> = resolve.packages[package]
        .interfaces
        .iter()
        .map(|(name, id)| {
            let module = Module { resolve: &resolve, id: *id, is_export: exported.contains(id) };
            (name.clone(), module.text())
        })
        .collect();
    modules.sort();
    modules
}

fn contract() -> (Resolve, PackageId) {
    let mut sources = SourceMap::new();
    for (name, text) in embedded::below("wit") {
        sources.push_str(name, text);
    }
    let group = sources.parse().expect("the host was compiled from the same contract");
    let mut resolve = Resolve::new();
    let package = resolve.push_group(group).expect("the host was compiled from the same contract");
    (resolve, package)
}

/// One interface.
struct Module<'a> {
    resolve: &'a Resolve,
    id: InterfaceId,
    /// The handler implements it. Otherwise the handler calls it.
    is_export: bool,
}

impl Module<'_> {
    fn text(&self) -> String {
        let interface = &self.resolve.interfaces[self.id];
        let mut out = comment("", &interface.docs, None);
        writeln!(out, "declare module \"{}\" {{", self.full_name(self.id)).expect("a String takes it");
        for (module, names) in self.uses() {
            let names = names.join(", ");
            writeln!(out, "  import type {{ {names} }} from \"{module}\";").expect("a String takes it");
        }
        let definitions = interface.types.iter().filter_map(|(name, id)| self.definition(name, *id));
        let free = interface.functions.values().filter(|function| is_free(function));
        let functions = free.map(|function| self.function("  ", "export function ", function));
        for part in definitions.chain(functions) {
            out.push('\n');
            out.push_str(&part);
        }
        out.push_str("}\n");
        out
    }

    /// `switchboard:host/http@1.0.0`
    fn full_name(&self, interface: InterfaceId) -> String {
        self.resolve.id_of(interface).expect("an interface of a package has a name")
    }

    /// The types of other interfaces that this one uses, by module.
    fn uses(&self) -> BTreeMap<String, Vec<String>> {
        let mut uses: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, id) in &self.resolve.interfaces[self.id].types {
            if let Some(other) = self.used_from(&self.resolve.types[*id]) {
                uses.entry(self.full_name(other)).or_default().push(pascal(name));
            }
        }
        uses.values_mut().for_each(|names| names.sort());
        uses
    }

    /// The interface that a type comes from, if it is another one.
    fn used_from(&self, definition: &TypeDef) -> Option<InterfaceId> {
        let TypeDefKind::Type(Type::Id(original)) = definition.kind else { return None };
        match self.resolve.types[original].owner {
            TypeOwner::Interface(other) if other != self.id => Some(other),
            _ => None,
        }
    }

    fn definition(&self, name: &str, id: TypeId) -> Option<String> {
        let definition = &self.resolve.types[id];
        if self.used_from(definition).is_some() {
            return None;
        }
        let name = pascal(name);
        let mut out = comment("  ", &definition.docs, None);
        let mut line = |text: String| {
            out.push_str(&text);
            out.push('\n');
        };
        match &definition.kind {
            TypeDefKind::Record(record) => {
                line(format!("  export interface {name} {{"));
                for field in &record.fields {
                    let (optional, value) = match self.optional(&field.ty) {
                        Some(value) => ("?", value),
                        None => ("", self.expression(&field.ty)),
                    };
                    let docs = comment("    ", &field.docs, None);
                    line(format!("{docs}    {}{optional}: {value};", camel(&field.name)));
                }
                line("  }".to_owned());
            }
            TypeDefKind::Variant(variant) => {
                line(format!("  export type {name} ="));
                for (at, case) in variant.cases.iter().enumerate() {
                    let value = case.ty.map(|ty| format!("; val: {}", self.expression(&ty)));
                    let docs = comment("    ", &case.docs, None);
                    let end = if at + 1 == variant.cases.len() { ";" } else { "" };
                    let value = value.unwrap_or_default();
                    line(format!("{docs}    | {{ tag: \"{}\"{value} }}{end}", case.name));
                }
            }
            TypeDefKind::Enum(cases) => {
                let cases: Vec<_> = cases.cases.iter().map(|case| format!("\"{}\"", case.name)).collect();
                line(format!("  export type {name} = {};", cases.join(" | ")));
            }
            TypeDefKind::Resource => {
                line(format!("  export class {name} {{"));
                line("    private constructor();".to_owned());
                let functions = self.resolve.interfaces[self.id].functions.values();
                for method in functions.filter(|function| function.kind == FunctionKind::Method(id)) {
                    line(self.function("    ", "", method).trim_end().to_owned());
                }
                line("  }".to_owned());
            }
            _ => line(format!("  export type {name} = {};", self.unnamed(&definition.kind))),
        }
        Some(out)
    }

    fn function(&self, indent: &str, keyword: &str, function: &Function) -> String {
        let is_method = !is_free(function);
        let params = function.params.iter().skip(usize::from(is_method));
        let params: Vec<_> =
            params.map(|param| format!("{}: {}", camel(&param.name), self.expression(&param.ty))).collect();
        let (returned, thrown) = self.outcome(function);
        let how = if self.is_export { "throw the value itself" } else { "the `payload` of the error" };
        let thrown = thrown.map(|thrown| format!("@throws {thrown}: {how}."));
        let docs = comment(indent, &function.docs, thrown.as_deref());
        let name = camel(function.item_name());
        format!("{docs}{indent}{keyword}{name}({}): {returned};\n", params.join(", "))
    }

    /// The type that a function returns, and the type that it throws.
    fn outcome(&self, function: &Function) -> (String, Option<String>) {
        let void = || "void".to_owned();
        let Some(ty) = &function.result else { return (void(), None) };
        let result = match ty {
            Type::Id(id) => match &self.resolve.types[*id].kind {
                TypeDefKind::Result(result) => Some(result),
                _ => None,
            },
            _ => None,
        };
        match result {
            Some(result) => (
                result.ok.as_ref().map_or_else(void, |ok| self.expression(ok)),
                Some(result.err.as_ref().map_or_else(void, |err| self.expression(err))),
            ),
            None => (self.expression(ty), None),
        }
    }

    /// The type inside of an `option`.
    fn optional(&self, ty: &Type) -> Option<String> {
        let Type::Id(id) = ty else { return None };
        match &self.resolve.types[*id].kind {
            TypeDefKind::Option(value) => Some(self.expression(value)),
            _ => None,
        }
    }

    fn expression(&self, ty: &Type) -> String {
        match ty {
            Type::Bool => "boolean".to_owned(),
            Type::U8 | Type::U16 | Type::U32 | Type::S8 | Type::S16 | Type::S32 | Type::F32 | Type::F64 => {
                "number".to_owned()
            }
            Type::U64 | Type::S64 => "bigint".to_owned(),
            Type::Char | Type::String => "string".to_owned(),
            Type::ErrorContext => panic!("the contract has no error-context"),
            Type::Id(id) => {
                let definition = &self.resolve.types[*id];
                match &definition.name {
                    Some(name) => pascal(name),
                    None => self.unnamed(&definition.kind),
                }
            }
        }
    }

    /// A type that is written where it is used.
    fn unnamed(&self, kind: &TypeDefKind) -> String {
        match kind {
            TypeDefKind::Type(ty) => self.expression(ty),
            TypeDefKind::Option(ty) => format!("{} | undefined", self.expression(ty)),
            TypeDefKind::List(ty) => match typed_array(ty) {
                Some(array) => array.to_owned(),
                None => format!("Array<{}>", self.expression(ty)),
            },
            TypeDefKind::Tuple(tuple) => {
                let types: Vec<_> = tuple.types.iter().map(|ty| self.expression(ty)).collect();
                format!("[{}]", types.join(", "))
            }
            TypeDefKind::Result(result) => {
                let case = |tag: &str, ty: &Option<Type>| {
                    let value = ty.map(|ty| format!("; val: {}", self.expression(&ty))).unwrap_or_default();
                    format!("{{ tag: \"{tag}\"{value} }}")
                };
                format!("{} | {}", case("ok", &result.ok), case("err", &result.err))
            }
            TypeDefKind::Handle(Handle::Own(id) | Handle::Borrow(id)) => {
                pascal(self.resolve.types[*id].name.as_deref().expect("a resource has a name"))
            }
            // The tests declare the whole contract.
            other => panic!("the contract has a {}, which has no form in TypeScript yet", other.as_str()),
        }
    }
}

/// Not a method of a resource.
fn is_free(function: &Function) -> bool {
    function.kind == FunctionKind::Freestanding
}

fn typed_array(element: &Type) -> Option<&'static str> {
    Some(match element {
        Type::U8 => "Uint8Array",
        Type::U16 => "Uint16Array",
        Type::U32 => "Uint32Array",
        Type::U64 => "BigUint64Array",
        Type::S8 => "Int8Array",
        Type::S16 => "Int16Array",
        Type::S32 => "Int32Array",
        Type::S64 => "BigInt64Array",
        Type::F32 => "Float32Array",
        Type::F64 => "Float64Array",
        _ => return None,
    })
}

/// A comment with the docs and a last line, if there is any.
fn comment(indent: &str, docs: &Docs, last: Option<&str>) -> String {
    let text = docs.contents.as_deref().unwrap_or_default().trim();
    let lines: Vec<&str> = text.lines().chain(last).collect();
    match lines[..] {
        [] => String::new(),
        [line] => format!("{indent}/** {line} */\n"),
        _ => {
            let lines: String =
                lines.iter().map(|line| format!("{}\n", format!("{indent} * {line}").trim_end())).collect();
            format!("{indent}/**\n{lines}{indent} */\n")
        }
    }
}

/// `retry-after-ms` is `retryAfterMs`.
fn camel(name: &str) -> String {
    let pascal = pascal(name);
    pascal[..1].to_ascii_lowercase() + &pascal[1..]
}

/// `sql-error` is `SqlError`.
fn pascal(name: &str) -> String {
    name.split('-').map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str) -> String {
        let modules = modules();
        modules.into_iter().find(|(module, _)| module == name).expect("an interface of the contract").1
    }

    #[test]
    fn every_import_and_export_is_declared() {
        let modules: Vec<_> = modules().into_iter().map(|(name, _)| name).collect();
        let files = embedded::below("wit").map(|(path, _)| path.trim_end_matches(".wit").to_owned());
        let mut interfaces: Vec<_> = files.filter(|name| name != "worlds").collect();
        interfaces.sort();
        assert_eq!(modules, interfaces);
        for (name, words) in [
            ("postgres", ["export class Transaction {", "commit(): void;"]),
            (
                "postgres",
                ["export function query(statement: string, params: Array<Value>): Rows;", "begin()"],
            ),
            ("postgres", ["| { tag: \"integer\"; val: bigint }", "| { tag: \"texts\"; val: Array<string> }"]),
            (
                "fetch",
                [
                    "timeoutMs?: number;",
                    "Array<{ tag: \"ok\"; val: Response } | { tag: \"err\"; val: Error }>",
                ],
            ),
            (
                "frame",
                [
                    "import type { Position, Principal, Problem }",
                    "handle(request: Request): Reply | undefined;",
                ],
            ),
            (
                "log",
                [
                    "type Level = \"debug\" | \"info\" | \"warn\" | \"error\";",
                    "fields: Array<[string, string]>",
                ],
            ),
            ("wake", ["shards: Uint32Array", "): void;"]),
            ("event", ["position: bigint;", "| { tag: \"reject\"; val: string };"]),
            (
                "connection-batch",
                ["open(node: string, opened: Array<Opened>): Array<Opening>;", "export interface"],
            ),
        ] {
            let text = module(name);
            for word in words {
                assert!(text.contains(word), "{name} lacks {word}:\n{text}");
            }
        }
    }

    #[test]
    fn a_module_has_the_name_of_its_import_and_the_comments_of_the_contract() {
        let config = [
            "/**",
            " * The handler's settings: `[config]` of its manifest, overridden by the operator. Constant during a call.",
            " * Recordings and logs conceal the values of all that the manifest's `public_settings` does not name.",
            " */",
            "declare module \"switchboard:host/config@1.0.0\" {",
            "",
            "  /** The value as written in TOML, text without its quotes. */",
            "  export function get(key: string): string | undefined;",
            "}\n",
        ];
        assert_eq!(module("config"), config.join("\n"));
        let secrets = module("secrets");
        assert!(secrets.contains("   * @throws Error: the `payload` of the error.\n   */"), "{secrets}");
        assert!(module("http").contains("@throws Problem: throw the value itself."), "{}", module("http"));
    }
}
