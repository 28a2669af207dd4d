//! The files that the release contains: the page, and the built client.

pub(crate) struct File {
    name: &'static str,
    pub text: &'static str,
}

/// Includes files of a directory, each under its own name.
macro_rules! files {
    ($directory:literal: $($name:literal)*) => {
        &[$(File { name: $name, text: include_str!(concat!($directory, "/", $name)) }),*]
    };
}

pub(crate) const INDEX: File = File { name: "index.html", text: include_str!("../page/index.html") };
pub(crate) const PAGE: &[File] =
    files!("../page": "conversation.js" "dom.js" "icon.svg" "list.js" "main.js" "page.css" "sign-in.js");
/// The files that `npm run build` makes. `scripts/test-js` checks that they are up to date.
pub(crate) const CLIENT: &[File] = files!("../../../clients/js/dist":
    "backoff.js" "calls.js" "client.js" "close.js" "connection.js" "emitter.js" "error.js" "following.js" "index.js"
    "life.js" "marks.js" "outbox.js" "rest.js" "stream.js" "typing.js" "wire.js");

pub(crate) fn find(files: &'static [File], name: &str) -> Option<&'static File> {
    files.iter().find(|file| file.name == name)
}

impl File {
    pub(crate) fn media_type(&self) -> &'static str {
        match self.name.rsplit_once('.') {
            Some((_, "html")) => "text/html; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "svg")) => "image/svg+xml",
            _ => "text/javascript; charset=utf-8",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_that_a_file_imports_is_served() {
        let is_served = |module: &str, beside: &'static [File]| {
            let within =
                |files, prefix| module.strip_prefix(prefix).and_then(|name| find(files, name)).is_some();
            within(beside, "./") || within(CLIENT, "/chat/client/")
        };
        for (file, beside) in
            CLIENT.iter().map(|file| (file, CLIENT)).chain(PAGE.iter().map(|file| (file, PAGE)))
        {
            for rest in file.text.split("from '").skip(1) {
                let module = rest.split('\'').next().unwrap_or_default();
                assert!(is_served(module, beside), "{} imports {module}", file.name);
            }
        }
    }

    #[test]
    fn the_page_never_turns_text_into_markup() {
        for file in PAGE {
            for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"] {
                assert!(!file.text.contains(word), "{} says {word}", file.name);
            }
        }
    }
}
