//! Declarations of the contract for TypeScript, made from the WIT. Each interface is a module with the name
//! by which a component imports it. They follow the mapping of ComponentizeJS: a `result` is returned or
//! thrown, an absent `option` is `undefined`, integers of 64 bits are `bigint`, and lists of numbers are
//! typed arrays. Asynchronous functions and streams have no form here: an error names the kind.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use wit_parser::{
    Docs, Function, FunctionKind, Handle, InterfaceId, PackageId, Resolve, SourceMap, Type, TypeDefKind,
    TypeId, TypeOwner, WorldItem,
};

use crate::embedded;

/// Words of TypeScript that neither a function nor a parameter can have as a name.
const RESERVED: [&str; 47] = [
    "arguments",
    "await",
    "break",
    "case",
    "catch",
    "class",
    "const",
    "continue",
    "debugger",
    "default",
    "delete",
    "do",
    "else",
    "enum",
    "eval",
    "export",
    "extends",
    "false",
    "finally",
    "for",
    "function",
    "if",
    "implements",
    "import",
    "in",
    "instanceof",
    "interface",
    "let",
    "new",
    "null",
    "package",
    "private",
    "protected",
    "public",
    "return",
    "static",
    "super",
    "switch",
    "this",
    "throw",
    "true",
    "try",
    "typeof",
    "var",
    "void",
    "while",
    "with",
];

/// The whole file of declarations.
///
/// # Errors
/// If the contract has a kind of type or function that has no form in TypeScript. The text names it.
pub(super) fn file() -> Result<String, String> {
    let modules: Vec<_> = modules()?.into_iter().map(|(_, text)| text).collect();
    Ok(format!(
        "// The contract between host and handler, for a component in TypeScript. `switchboard wit --as typescript` \
         writes\n// this file; do not edit it.\n\n{}",
        modules.join("\n")
    ))
}

/// The declaration of each interface, with its name, in the order of the names.
///
/// # Errors
/// As for [`file`].
pub(super) fn modules() -> Result<Vec<(String, String)>, String> {
    let (resolve, package) = resolved(embedded::below("wit"));
    declared(&resolve, package)
}

/// Reads files of one package.
fn resolved<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Resolve, PackageId) {
    let mut sources = SourceMap::new();
    for (name, text) in files {
        sources.push_str(name, text);
    }
    let group = sources.parse().expect("the host was compiled from the same contract");
    let mut resolve = Resolve::new();
    let package = resolve.push_group(group).expect("the host was compiled from the same contract");
    (resolve, package)
}

fn declared(resolve: &Resolve, package: PackageId) -> Result<Vec<(String, String)>, String> {
    let package = &resolve.packages[package];
    let exports = package.worlds.values().flat_map(|world| resolve.worlds[*world].exports.values());
    let exported: HashSet<InterfaceId> = exports
        .filter_map(|item| match item {
            WorldItem::Interface { id, .. } => Some(*id),
            _ => None,
        })
        .collect();
    let mut modules = Vec::new();
    for (name, id) in &package.interfaces {
        let module = Module { resolve, id: *id, is_export: exported.contains(id) };
        let text = module.text().map_err(|what| {
            format!("the interface `{name}` has {what}, which has no form in TypeScript yet")
        })?;
        modules.push((name.clone(), text));
    }
    modules.sort();
    Ok(modules)
}

/// One interface. An error of its methods names what has no form.
struct Module<'a> {
    resolve: &'a Resolve,
    id: InterfaceId,
    /// The handler implements it. Otherwise the handler calls it.
    is_export: bool,
}

impl Module<'_> {
    fn text(&self) -> Result<String, String> {
        let interface = &self.resolve.interfaces[self.id];
        let mut out = comment("", &interface.docs, None);
        writeln!(out, "declare module \"{}\" {{", self.full_name(self.id)).expect("a String takes it");
        for (module, names) in self.uses() {
            let names = names.join(", ");
            writeln!(out, "  import type {{ {names} }} from \"{module}\";").expect("a String takes it");
        }
        for (name, id) in &interface.types {
            if let Some(definition) = self.definition(name, *id)? {
                out.push('\n');
                out.push_str(&definition);
            }
        }
        for function in interface.functions.values() {
            match function.kind {
                FunctionKind::Freestanding => {
                    out.push('\n');
                    out.push_str(&self.free_function(function)?);
                }
                // It is in the class of its resource.
                FunctionKind::Method(_) | FunctionKind::Static(_) | FunctionKind::Constructor(_) => {}
                FunctionKind::AsyncFreestanding
                | FunctionKind::AsyncMethod(_)
                | FunctionKind::AsyncStatic(_) => {
                    return Err(format!("the async function `{}`", function.name));
                }
            }
        }
        out.push_str("}\n");
        Ok(out)
    }

    /// `switchboard:host/http@1.0.0`
    fn full_name(&self, interface: InterfaceId) -> String {
        self.resolve.id_of(interface).expect("an interface of a package has a name")
    }

    /// The types of other interfaces that this one uses, by module.
    fn uses(&self) -> BTreeMap<String, Vec<String>> {
        let mut uses: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, id) in &self.resolve.interfaces[self.id].types {
            if let Some((other, original)) = self.used_from(*id) {
                let (name, original) = (pascal(name), pascal(original));
                let import = if name == original { name } else { format!("{original} as {name}") };
                uses.entry(self.full_name(other)).or_default().push(import);
            }
        }
        uses.values_mut().for_each(|names| names.sort());
        uses
    }

    /// The interface that defines a type, and its name there, if it is another interface. The interface that
    /// a type is used from may have it from a third one.
    fn used_from(&self, id: TypeId) -> Option<(InterfaceId, &str)> {
        let mut found = None;
        let mut definition = &self.resolve.types[id];
        while let TypeDefKind::Type(Type::Id(original)) = definition.kind {
            let next = &self.resolve.types[original];
            match next.owner {
                TypeOwner::Interface(interface) if next.owner != definition.owner => {
                    found = Some((interface, next.name.as_deref()?));
                }
                _ => break,
            }
            definition = next;
        }
        found
    }

    /// The definition of a type; `None` if another interface has it.
    fn definition(&self, name: &str, id: TypeId) -> Result<Option<String>, String> {
        if self.used_from(id).is_some() {
            return Ok(None);
        }
        let definition = &self.resolve.types[id];
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
                    let (optional, value) = match self.kind(field.ty) {
                        Some(TypeDefKind::Option(value)) => ("?", self.expression(value)?),
                        _ => ("", self.expression(&field.ty)?),
                    };
                    let docs = comment("    ", &field.docs, None);
                    line(format!("{docs}    {}{optional}: {value};", camel(&field.name)));
                }
                line("  }".to_owned());
            }
            TypeDefKind::Flags(flags) => {
                line(format!("  export interface {name} {{"));
                for flag in &flags.flags {
                    let docs = comment("    ", &flag.docs, None);
                    line(format!("{docs}    {}?: boolean;", camel(&flag.name)));
                }
                line("  }".to_owned());
            }
            TypeDefKind::Variant(variant) => {
                line(format!("  export type {name} ="));
                for (at, case) in variant.cases.iter().enumerate() {
                    let text = self.case(&case.name, case.ty)?;
                    let docs = comment("    ", &case.docs, None);
                    let end = if at + 1 == variant.cases.len() { ";" } else { "" };
                    line(format!("{docs}    | {text}{end}"));
                }
            }
            TypeDefKind::Enum(cases) => {
                let cases: Vec<_> = cases.cases.iter().map(|case| format!("\"{}\"", case.name)).collect();
                line(format!("  export type {name} = {};", cases.join(" | ")));
            }
            TypeDefKind::Resource => {
                line(format!("  export class {name} {{"));
                let functions = self.resolve.interfaces[self.id].functions.values();
                let own: Vec<_> = functions.filter(|function| function.kind.resource() == Some(id)).collect();
                if own.iter().all(|function| function.kind != FunctionKind::Constructor(id)) {
                    line("    private constructor();".to_owned());
                }
                for function in own {
                    line(self.member(function)?);
                }
                line("  }".to_owned());
            }
            kind => line(format!("  export type {name} = {};", self.unnamed(kind)?)),
        }
        Ok(Some(out))
    }

    fn free_function(&self, function: &Function) -> Result<String, String> {
        let (docs, params, returned) = self.signature("  ", function)?;
        let name = camel(function.item_name());
        if RESERVED.contains(&name.as_str()) {
            return Ok(format!(
                "{docs}  function {name}_({params}): {returned};\n  export {{ {name}_ as {name} }};\n"
            ));
        }
        Ok(format!("{docs}  export function {name}({params}): {returned};\n"))
    }

    /// A function of a class, without the end of its line.
    fn member(&self, function: &Function) -> Result<String, String> {
        let (docs, params, returned) = self.signature("    ", function)?;
        let name = camel(function.item_name());
        Ok(match function.kind {
            FunctionKind::Constructor(_) => format!("{docs}    constructor({params});"),
            FunctionKind::Static(_) => format!("{docs}    static {name}({params}): {returned};"),
            _ => format!("{docs}    {name}({params}): {returned};"),
        })
    }

    /// The comment of a function, its parameters, and the type that it returns.
    fn signature(&self, indent: &str, function: &Function) -> Result<(String, String, String), String> {
        // The object itself is the first parameter of a method.
        let own = usize::from(matches!(function.kind, FunctionKind::Method(_)));
        let mut params = Vec::new();
        for param in function.params.iter().skip(own) {
            let name = camel(&param.name);
            let end = if RESERVED.contains(&name.as_str()) { "_" } else { "" };
            params.push(format!("{name}{end}: {}", self.expression(&param.ty)?));
        }
        let (returned, thrown) = self.outcome(function)?;
        let how = if self.is_export { "throw the value itself" } else { "the `payload` of the error" };
        let thrown = thrown.map(|thrown| format!("@throws {thrown}: {how}."));
        Ok((comment(indent, &function.docs, thrown.as_deref()), params.join(", "), returned))
    }

    /// The type that a function returns, and the type that it throws.
    fn outcome(&self, function: &Function) -> Result<(String, Option<String>), String> {
        let part = |ty: Option<Type>| match ty {
            Some(ty) => self.expression(&ty),
            None => Ok("void".to_owned()),
        };
        match function.result.and_then(|ty| self.kind(ty)) {
            Some(TypeDefKind::Result(result)) => Ok((part(result.ok)?, Some(part(result.err)?))),
            _ => Ok((part(function.result)?, None)),
        }
    }

    /// The kind of a type, also if it is another name of a type. `None`: it is primitive.
    fn kind(&self, ty: Type) -> Option<&TypeDefKind> {
        let Type::Id(id) = ty else { return None };
        match &self.resolve.types[id].kind {
            TypeDefKind::Type(other) => self.kind(*other),
            kind => Some(kind),
        }
    }

    fn expression(&self, ty: &Type) -> Result<String, String> {
        Ok(match ty {
            Type::Bool => "boolean".to_owned(),
            Type::U8 | Type::U16 | Type::U32 | Type::S8 | Type::S16 | Type::S32 | Type::F32 | Type::F64 => {
                "number".to_owned()
            }
            Type::U64 | Type::S64 => "bigint".to_owned(),
            Type::Char | Type::String => "string".to_owned(),
            Type::ErrorContext => return Err("a type of the kind `error-context`".to_owned()),
            Type::Id(id) => {
                let definition = &self.resolve.types[*id];
                match &definition.name {
                    Some(name) => pascal(name),
                    None => self.unnamed(&definition.kind)?,
                }
            }
        })
    }

    /// A type that is written where it is used.
    fn unnamed(&self, kind: &TypeDefKind) -> Result<String, String> {
        Ok(match kind {
            TypeDefKind::Type(ty) => self.expression(ty)?,
            TypeDefKind::Option(ty) => format!("{} | undefined", self.expression(ty)?),
            TypeDefKind::List(ty) => match typed_array(ty) {
                Some(array) => array.to_owned(),
                None => format!("Array<{}>", self.expression(ty)?),
            },
            TypeDefKind::Tuple(tuple) => {
                let types = tuple.types.iter().map(|ty| self.expression(ty));
                format!("[{}]", types.collect::<Result<Vec<_>, _>>()?.join(", "))
            }
            TypeDefKind::Result(result) => {
                format!("{} | {}", self.case("ok", result.ok)?, self.case("err", result.err)?)
            }
            TypeDefKind::Handle(Handle::Own(id) | Handle::Borrow(id)) => {
                pascal(self.resolve.types[*id].name.as_deref().expect("a resource has a name"))
            }
            other => return Err(format!("a type of the kind `{}`", other.as_str())),
        })
    }

    /// One case of a union.
    fn case(&self, tag: &str, ty: Option<Type>) -> Result<String, String> {
        Ok(match ty {
            Some(ty) => format!("{{ tag: \"{tag}\"; val: {} }}", self.expression(&ty)?),
            None => format!("{{ tag: \"{tag}\" }}"),
        })
    }
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
    let text = docs.contents.as_deref().unwrap_or_default().trim().replace("*/", "* /");
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
        let modules = modules().expect("every kind of the contract has a form");
        modules.into_iter().find(|(module, _)| module == name).expect("an interface of the contract").1
    }

    #[test]
    fn every_import_and_export_is_declared() {
        let modules: Vec<_> = modules().unwrap().into_iter().map(|(name, _)| name).collect();
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

    /// A kind of type that the contract does not have yet.
    const OTHER_KINDS: &str = "package a:b@1.0.0;
        interface shared { record problem { code: u32 } }
        interface between { use shared.{problem}; }
        interface other-kinds {
            use between.{problem as trouble};
            flags days { monday, every-day }
            enum level { low, high }
            variant due { at-ms(u64), never }
            type numbers = list<u8>;
            type answer = result<numbers, trouble>;
            type perhaps = option<due>;
            record entry { key: string, due: perhaps, pair: tuple<u32, option<string>> }
            resource cursor {
                constructor(key: string);
                open: static func() -> result<cursor>;
                next: func(count: u32) -> answer;
            }
            delete: func(in: list<entry>) -> answer;
        }";

    #[test]
    fn other_kinds_of_types_and_functions_are_declared_too() {
        let (resolve, package) = resolved([("other.wit", OTHER_KINDS)]);
        let modules = declared(&resolve, package).unwrap();
        let (_, text) = modules.iter().find(|(name, _)| name == "other-kinds").unwrap();
        for part in [
            "  import type { Problem as Trouble } from \"a:b/shared@1.0.0\";\n",
            "  export interface Days {\n    monday?: boolean;\n    everyDay?: boolean;\n  }\n",
            "  export type Level = \"low\" | \"high\";\n",
            "  export type Due =\n    | { tag: \"at-ms\"; val: bigint }\n    | { tag: \"never\" };\n",
            "  export type Numbers = Uint8Array;\n",
            "  export type Answer = { tag: \"ok\"; val: Numbers } | { tag: \"err\"; val: Trouble };\n",
            "    due?: Due;\n    pair: [number, string | undefined];\n",
            "    constructor(key: string);\n",
            "    static open(): Cursor;\n",
            "    next(count: number): Numbers;\n",
            "  function delete_(in_: Array<Entry>): Numbers;\n  export { delete_ as delete };\n",
        ] {
            assert!(text.contains(part), "no {part}:\n{text}");
        }
        assert!(!text.contains("private constructor"), "{text}");
    }

    #[test]
    fn a_kind_without_a_form_is_an_error_that_names_it() {
        for (function, named) in [
            ("f: func() -> future<u32>;", "a type of the kind `future`"),
            ("f: func(x: list<stream<u8>>);", "a type of the kind `stream`"),
            ("f: async func();", "the async function `f`"),
        ] {
            let text = format!("package a:b;\ninterface odd {{ {function} }}\n");
            let (resolve, package) = resolved([("odd.wit", text.as_str())]);
            let error = declared(&resolve, package).unwrap_err();
            assert!(error.contains("interface `odd`") && error.contains(named), "{error}");
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
