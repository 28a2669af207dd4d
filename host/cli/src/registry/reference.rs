//! The name `oci://host[:port]/repository[:tag][@digest]`, and the URLs for it.

use hyper::Uri;

use switchboard_core::ids::Digest;
use switchboard_http::fetch;

const SCHEME: &str = "oci://";
/// Bounds of the registries' specification.
const REPOSITORY_CHARS_MAX: usize = 255;
const TAG_CHARS_MAX: usize = 128;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// The host with its port.
    pub host: String,
    pub repository: String,
    pub tag: String,
    pub digest: Option<String>,
}

pub(crate) fn is_named_by(source: &str) -> bool {
    source.starts_with(SCHEME)
}

impl Reference {
    /// Parses a name. The registry is required: a default registry would be a place that the operator did not
    /// name. An error is a sentence.
    pub(super) fn parse(source: &str) -> Result<Self, String> {
        let wrong =
            |why: &str| format!("{source}: {why}; write {SCHEME}host[:port]/repository[:tag][@sha256:…]");
        let rest = source.strip_prefix(SCHEME).ok_or_else(|| wrong("the scheme is not oci"))?;
        let (host, rest) = rest.split_once('/').ok_or_else(|| wrong("the repository is missing"))?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_owned())),
            None => (rest, None),
        };
        let (repository, tag) = rest.split_once(':').unwrap_or((rest, "latest"));
        let is_host = host == "localhost" || host.contains(['.', ':']);
        if !is_host || host.contains('@') || url(host, "/").is_none() {
            return Err(wrong("the host of a registry has a dot or a port, or is localhost"));
        }
        let is_part = |part: &str| {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            part.starts_with(plain)
                && part.ends_with(plain)
                && part.chars().all(|c| plain(c) || "._-".contains(c))
        };
        if repository.len() > REPOSITORY_CHARS_MAX || !repository.split('/').all(is_part) {
            return Err(wrong("a repository consists of lower-case letters, digits, `.`, `_`, `-` and `/`"));
        }
        let of_tag = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !(1..=TAG_CHARS_MAX).contains(&tag.len())
            || !tag.chars().all(of_tag)
            || tag.starts_with(['.', '-'])
        {
            return Err(wrong("a tag consists of letters, digits, `.`, `_` and `-`"));
        }
        let is_digest =
            |digest: &String| digest.strip_prefix("sha256:").is_some_and(|hex| Digest::parse(hex).is_some());
        if !digest.as_ref().is_none_or(is_digest) {
            return Err(wrong("a digest is `sha256:` and 64 hex digits"));
        }
        Ok(Self { host: host.to_owned(), repository: repository.to_owned(), tag: tag.to_owned(), digest })
    }

    /// The digest, if there is one, because a tag may have moved; otherwise the tag.
    pub(super) fn version(&self) -> &str {
        self.digest.as_deref().unwrap_or(&self.tag)
    }

    pub(super) fn url(&self, path: &str) -> Uri {
        let path = format!("/v2/{}/{path}", self.repository);
        url(&self.host, &path).expect("host and repository were looked at, and the rest is of them")
    }
}

/// The scheme: plain HTTP to this machine only.
fn url(host: &str, path: &str) -> Option<Uri> {
    let probe: Uri = format!("https://{host}{path}").parse().ok()?;
    let name = probe.host()?.trim_start_matches('[').trim_end_matches(']');
    let scheme = if fetch::is_here(name) { "http" } else { "https" };
    Uri::builder().scheme(scheme).authority(host).path_and_query(path).build().ok()
}

/// The target of a redirect: an absolute URL, or a path on the same host.
pub(super) fn resolve(from: &Uri, to: &str) -> Option<Uri> {
    if to.starts_with('/') && !to.starts_with("//") {
        return Uri::builder()
            .scheme(from.scheme()?.clone())
            .authority(from.authority()?.clone())
            .path_and_query(to)
            .build()
            .ok();
    }
    to.parse::<Uri>().ok().filter(|url| url.scheme().is_some() && url.host().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_registry_is_named_and_never_guessed() {
        for (source, host, repository, tag, digest) in [
            ("oci://ghcr.io/acme/echo:1.2", "ghcr.io", "acme/echo", "1.2", None),
            ("oci://127.0.0.1:5000/echo", "127.0.0.1:5000", "echo", "latest", None),
            (&format!("oci://localhost/a/b.c@{DIGEST}"), "localhost", "a/b.c", "latest", Some(DIGEST)),
            (&format!("oci://[::1]:5000/a__b:x@{DIGEST}"), "[::1]:5000", "a__b", "x", Some(DIGEST)),
        ] {
            let expected = Reference {
                host: host.into(),
                repository: repository.into(),
                tag: tag.into(),
                digest: digest.map(str::to_owned),
            };
            assert_eq!(Reference::parse(source), Ok(expected), "{source}");
        }
        for bad in [
            "oci://",
            "oci://echo",
            "oci://echo:1",
            "oci://acme/echo:1",
            "oci:///x",
            "oci://h.x/UP:1",
            "oci://h.x/a//b",
            "oci://h.x/../b",
            "oci://h.x/a?b",
            "oci://h.x/a:",
            "oci://h.x/a:b/c",
            "oci://h.x/a@sha256:12",
            "oci://h.x/a@md5:12",
            "oci://user:pw@h.x/a",
            "oci://h .x/a",
        ] {
            let error = Reference::parse(bad).expect_err(bad);
            assert!(error.contains(bad) && error.contains("oci://host[:port]/"), "{error}");
        }
    }

    #[test]
    fn it_is_asked_for_by_tls_unless_it_is_here() {
        let url = |source: &str| Reference::parse(source).unwrap().url("manifests/1").to_string();
        assert_eq!(url("oci://ghcr.io/a/b:1"), "https://ghcr.io/v2/a/b/manifests/1");
        assert_eq!(url("oci://10.0.0.1:5000/b:1"), "https://10.0.0.1:5000/v2/b/manifests/1");
        assert_eq!(url("oci://127.0.0.1:5000/b"), "http://127.0.0.1:5000/v2/b/manifests/1");
        assert_eq!(url("oci://[::1]:5000/b"), "http://[::1]:5000/v2/b/manifests/1");
        assert_eq!(url("oci://localhost.evil.example/b"), "https://localhost.evil.example/v2/b/manifests/1");
    }

    #[test]
    fn a_redirect_leads_somewhere_or_nowhere() {
        let from: Uri = "https://r.example/v2/a/blobs/x".parse().unwrap();
        let to = |to: &str| resolve(&from, to).map(|url| url.to_string());
        assert_eq!(to("https://cdn.example/x?sig=1").as_deref(), Some("https://cdn.example/x?sig=1"));
        assert_eq!(to("/elsewhere").as_deref(), Some("https://r.example/elsewhere"));
        for nowhere in ["", "x", "//cdn.example/x", "https://"] {
            assert_eq!(to(nowhere), None, "{nowhere}");
        }
    }
}
