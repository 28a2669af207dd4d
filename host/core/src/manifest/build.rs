//! How a handler that is not a crate becomes a component: `[build]` of the manifest. Only `switchboard build`
//! reads it, and leaves it out of the release.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::limits;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// A program and its arguments. It runs in the directory of the handler, without a shell.
    pub command: Vec<String>,
    /// The file with the component that the command writes, in the directory of the handler.
    #[serde(default = "Build::default_component")]
    pub component: String,
}

impl Build {
    /// `switchboard dev` does not watch a directory of this name.
    fn default_component() -> String {
        "target/component.wasm".to_owned()
    }

    /// Returns the broken rule.
    pub(super) fn check(&self) -> Result<(), String> {
        let words_max = limits::BUILD_COMMAND_WORDS_MAX;
        if self.command.first().is_none_or(String::is_empty) || self.command.len() > words_max {
            return Err(format!(
                "`build.command` is a program and its arguments, such as [\"sh\", \"build.sh\"]: at most \
                 {words_max} words"
            ));
        }
        let inside = Path::new(&self.component).components().all(|part| matches!(part, Component::Normal(_)));
        if self.component.is_empty() || !inside {
            return Err(format!(
                "`build.component` is the path of a file in the handler's directory, not `{}`",
                self.component
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::manifest::Manifest;

    fn build(text: &str) -> Result<Manifest, String> {
        let manifest = format!("name = \"x\"\non.frame = [{{ type = \"x\" }}]\n[build]\n{text}");
        Manifest::parse(&manifest).map_err(|error| error.to_string())
    }

    #[test]
    fn a_command_is_a_program_and_its_arguments() {
        let build_of = |text| build(text).unwrap().build.unwrap();
        let plain = build_of("command = [\"sh\", \"build.sh\"]");
        assert_eq!((plain.command.len(), plain.component.as_str()), (2, "target/component.wasm"));
        assert_eq!(build_of("command = [\"make\"]\ncomponent = \"out/x.wasm\"").component, "out/x.wasm");

        for (text, complaint) in [
            ("command = []", "`build.command`"),
            ("command = [\"\"]", "`build.command`"),
            ("component = \"x.wasm\"", "missing field `command`"),
            ("command = \"make\"", "invalid type"),
            ("command = [\"make\"]\ncomponent = \"\"", "`build.component`"),
            ("command = [\"make\"]\ncomponent = \"../x.wasm\"", "`build.component`"),
            ("command = [\"make\"]\ncomponent = \"/x.wasm\"", "`build.component`"),
            ("command = [\"make\"]\nshell = true", "unknown field `shell`"),
        ] {
            let refusal = build(text).unwrap_err();
            assert!(refusal.contains(complaint), "{text}: {refusal}");
        }
        let long = format!("command = [{}]", "\"x\", ".repeat(65));
        assert!(build(&long).unwrap_err().contains("at most 64 words"));
    }
}
