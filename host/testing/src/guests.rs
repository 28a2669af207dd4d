//! Guests for the tests of the runtime, written in WebAssembly instructions. They are small and quick, and
//! each does exactly what its name says. `tests/guests` has the same kinds of guests written in Rust.
//!
//! Each is the bytes of a release file. It exports `schedule.run` and answers `ok` unless something stops it.

use std::path::{Path, PathBuf};

use wasm_encoder::{
    BlockType, CodeSection, ComponentSection as _, ConstExpr, CustomSection, Encode as _, EntityType,
    ExportKind, ExportSection, Function, FunctionSection, GlobalSection, GlobalType, ImportSection,
    InstanceSection, InstructionSink, MemArg, MemorySection, MemoryType, Module, ModuleArg, ModuleSection,
    NameMap, NameSection, StartSection, TypeSection, ValType,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, WorldId};

use switchboard_core::manifest;

const MANIFEST: &str = r#"
    name = "guest"
    on.schedule = [{ name = "tick", every_ms = 1000 }]
    [limits]
    deadline_ms = 400
    cpu_ms = 20
    memory_mib = 1
    host_calls = 10
    host_bytes = 1000
    concurrency = 2
"#;

/// Indexes of the imports.
const NOW: u32 = 0;
const LOG: u32 = 1;

pub fn returns() -> Vec<u8> {
    guest(|_| ())
}

/// Returns, and instantiates `count` other modules, each with a memory of `pages` pages; 0 pages: without a
/// memory.
pub fn with_modules(count: u32, pages: u64) -> Vec<u8> {
    let mut bytes = returns();
    // The number of modules in the component so far.
    let own = wasmparser::Parser::new(0).parse_all(&bytes).scan(0, |depth, payload| {
        match payload.expect("a component") {
            wasmparser::Payload::ModuleSection { .. } => {
                *depth += 1;
                Some(u32::from(*depth == 1))
            }
            wasmparser::Payload::End(_) => {
                *depth -= 1;
                Some(0)
            }
            _ => Some(0),
        }
    });
    let own: u32 = own.sum();
    let mut module = Module::new();
    if pages > 0 {
        let kind = MemoryType {
            minimum: pages,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        };
        module.section(MemorySection::new().memory(kind));
    }
    let mut instances = InstanceSection::new();
    for number in 0..count {
        let section = ModuleSection(&module);
        bytes.push(section.id());
        section.encode(&mut bytes);
        instances.instantiate(own + number, std::iter::empty::<(&str, ModuleArg)>());
    }
    bytes.push(instances.id());
    instances.encode(&mut bytes);
    bytes
}

pub fn loops() -> Vec<u8> {
    guest(|body| {
        body.loop_(BlockType::Empty).br(0).end();
    })
}

pub fn traps() -> Vec<u8> {
    guest(|body| {
        body.unreachable();
    })
}

/// Calls itself for ever.
pub fn recurses() -> Vec<u8> {
    guest(|body| {
        body.local_get(0).local_get(1).local_get(2).local_get(3).local_get(4).call(RUN).drop();
    })
}

/// Grows page by page and traps when there are no more, as an allocator does.
pub fn bombs_memory() -> Vec<u8> {
    guest(|body| {
        body.loop_(BlockType::Empty);
        body.i32_const(1).memory_grow(0).i32_const(-1).i32_eq();
        body.if_(BlockType::Empty).unreachable().end();
        body.br(0).end();
    })
}

/// Reads the clock `times` times.
pub fn asks_the_time(times: u32) -> Vec<u8> {
    guest(|body| {
        for _ in 0..times {
            body.call(NOW).drop();
        }
    })
}

/// Works for longer than its processor time allows, and reads the clock meanwhile.
pub fn works_between_host_calls() -> Vec<u8> {
    guest(|body| {
        for _ in 0..10 {
            body.call(NOW).drop();
            body.i32_const(0).local_set(0);
            body.loop_(BlockType::Empty);
            body.local_get(0).i32_const(1).i32_add().local_tee(0);
            body.i32_const(20_000_000).i32_lt_u().br_if(0).end();
        }
    })
}

/// Logs one line of `bytes` bytes.
pub fn logs(bytes: i32) -> Vec<u8> {
    guest(|body| {
        body.i32_const(1).i32_const(1024).i32_const(bytes).i32_const(0).i32_const(0).call(LOG);
    })
}

/// Makes `host_calls` host calls, reports `times` panics as the sdk does, and traps.
pub fn panics(message: &str, location: &str, host_calls: u32, times: u32) -> Vec<u8> {
    const NAME: &str = "panic.location";
    // The message, the list of fields (one pair of texts), and its two texts. Arguments begin at 8192.
    let (text, fields, name, value) = (1024, 4096, 4352, 4608);
    let word = |number: usize| u32::try_from(number).expect("a small text").to_le_bytes();
    let pair = [name, NAME.len(), value, location.len()].map(word).concat();
    guest(|body| {
        for _ in 0..host_calls {
            body.call(NOW).drop();
        }
        let texts = [message.as_bytes(), pair.as_slice(), NAME.as_bytes(), location.as_bytes()];
        for (at, bytes) in [text, fields, name, value].into_iter().zip(texts) {
            for (offset, byte) in bytes.iter().enumerate() {
                let place = MemArg { offset: 0, align: 0, memory_index: 0 };
                body.i32_const((at + offset) as i32).i32_const(i32::from(*byte)).i32_store8(place);
            }
        }
        for _ in 0..times {
            let length = message.len() as i32;
            body.i32_const(3).i32_const(text as i32).i32_const(length).i32_const(fields as i32).i32_const(1);
            body.call(LOG);
        }
        body.unreachable();
    })
}

/// Reads the clock in its start function, before any call.
pub fn starts_with_a_host_call() -> Vec<u8> {
    build(MANIFEST, true, |_| ())
}

/// Made with other tools: it draws and asks the time through WASI 0.2.
pub fn speaks_wasi() -> Vec<u8> {
    use ValType::{I32, I64};
    let mut types = TypeSection::new();
    types.ty().function([], [I64]);
    types.ty().function([I32, I32, I32, I32, I64], [I32]);
    types.ty().function([I32; 4], [I32]);
    let mut imports = ImportSection::new();
    imports.import("wasi:random/random@0.2.0", "get-random-u64", EntityType::Function(0));
    imports.import("wasi:clocks/monotonic-clock@0.2.0", "now", EntityType::Function(0));
    let mut functions = FunctionSection::new();
    functions.function(1).function(2);
    let mut run = Function::new([]);
    run.instructions().call(0).drop().call(1).drop().i32_const(16).end();
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions).section(&memory()).section(&heap());
    module.section(&exports()).section(CodeSection::new().function(&run).function(&realloc()));
    let world = "package test:guest;
        world wasi {
            import wasi:random/random@0.2.0;
            import wasi:clocks/monotonic-clock@0.2.0;
            export switchboard:host/schedule@1.0.0;
        }
        package wasi:random@0.2.0 { interface random { get-random-u64: func() -> u64; } }
        package wasi:clocks@0.2.0 { interface monotonic-clock { now: func() -> u64; } }";
    let mut resolve = Resolve::default();
    resolve.push_path(wit()).unwrap();
    let package = resolve.push_str("world.wit", world).unwrap();
    let world = resolve.select_world(&[package], Some("wasi")).unwrap();
    encode(module.finish(), &resolve, world, MANIFEST)
}

/// A handler with this name and these limits. It grows its memory by `pages` pages, and reads the clock.
pub fn named(name: &str, limits: &str, pages: i32) -> Vec<u8> {
    build(&manifest(name, limits), false, |body| {
        if pages > 0 {
            body.i32_const(pages).memory_grow(0).i32_const(-1).i32_eq();
            body.if_(BlockType::Empty).unreachable().end();
        }
        body.call(NOW).drop();
    })
}

/// A handler with this name and these limits. It computes for `rounds` rounds of a nanosecond or less each.
/// Without a number it never ends.
pub fn works(name: &str, limits: &str, rounds: Option<i32>) -> Vec<u8> {
    build(&manifest(name, limits), false, |body| {
        body.i32_const(0).local_set(0);
        body.loop_(BlockType::Empty);
        match rounds {
            Some(rounds) => {
                body.local_get(0).i32_const(1).i32_add().local_tee(0);
                body.i32_const(rounds).i32_lt_u().br_if(0).end();
            }
            None => {
                body.br(0).end();
            }
        }
    })
}

fn manifest(name: &str, limits: &str) -> String {
    format!("name = \"{name}\"\non.schedule = [{{ name = \"tick\", every_ms = 1000 }}]\n[limits]\n{limits}\n")
}

pub fn with_manifest(text: &str) -> Vec<u8> {
    build(text, false, |body| {
        body.call(NOW).drop();
    })
}

fn guest(body: impl Fn(&mut InstructionSink<'_>)) -> Vec<u8> {
    build(MANIFEST, false, body)
}

const RUN: u32 = 2;
const REALLOC: u32 = 3;
const START: u32 = 4;

fn build(manifest: &str, starts: bool, body: impl Fn(&mut InstructionSink<'_>)) -> Vec<u8> {
    use ValType::{I32, I64};
    let mut types = TypeSection::new();
    types.ty().function([], [I64]);
    types.ty().function([I32; 5], []);
    types.ty().function([I32, I32, I32, I32, I64], [I32]);
    types.ty().function([I32; 4], [I32]);
    types.ty().function([], []);

    let mut imports = ImportSection::new();
    imports.import("switchboard:host/clock@1.0.0", "now-ms", EntityType::Function(0));
    imports.import("switchboard:host/log@1.0.0", "log", EntityType::Function(1));

    let mut functions = FunctionSection::new();
    functions.function(2).function(3).function(4);

    let mut code = CodeSection::new();
    let mut run = Function::new([]);
    body(&mut run.instructions());
    // A result at address 16, all zeros: `ok`.
    run.instructions().i32_const(16).end();
    code.function(&run);
    code.function(&realloc());
    let mut start = Function::new([]);
    start.instructions().call(NOW).drop().end();
    code.function(&start);

    let mut names = NameSection::new();
    let mut of_functions = NameMap::new();
    of_functions.append(RUN, "the_body_of_the_guest");
    names.functions(&of_functions);

    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions).section(&memory()).section(&heap());
    module.section(&exports());
    if starts {
        module.section(&StartSection { function_index: START });
    }
    module.section(&code).section(&names);
    component(module.finish(), "schedule-handler", manifest)
}

fn memory() -> MemorySection {
    let mut memories = MemorySection::new();
    let one = MemoryType { minimum: 1, maximum: None, memory64: false, shared: false, page_size_log2: None };
    memories.memory(one);
    memories
}

/// The address of the next argument. Results lie below it.
fn heap() -> GlobalSection {
    let mut globals = GlobalSection::new();
    let mark = GlobalType { val_type: ValType::I32, mutable: true, shared: false };
    globals.global(mark, &ConstExpr::i32_const(8192));
    globals
}

/// Both kinds of guests have two imports, so `run` and `realloc` have the same numbers.
fn exports() -> ExportSection {
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    exports.export("switchboard:host/schedule@1.0.0#run", ExportKind::Func, RUN);
    exports.export("cabi_realloc", ExportKind::Func, REALLOC);
    exports
}

/// Moves the mark, and frees nothing.
fn realloc() -> Function {
    let mut realloc = Function::new([]);
    realloc.instructions().global_get(0).global_get(0).local_get(3).i32_add().i32_const(15).i32_add();
    realloc.instructions().i32_const(-16).i32_and().global_set(0).end();
    realloc
}

/// A core module that implements a world of the contract, as a release file.
fn component(module: Vec<u8>, world: &str, manifest: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit()).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    encode(module, &resolve, world, manifest)
}

fn wit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit")
}

fn encode(mut module: Vec<u8>, resolve: &Resolve, world: WorldId, manifest: &str) -> Vec<u8> {
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8).unwrap();
    let mut bytes = ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap();
    let section = CustomSection { name: manifest::SECTION.into(), data: manifest.as_bytes().into() };
    bytes.push(section.id());
    section.encode(&mut bytes);
    bytes
}
