//! Releases from an OCI registry: the deploy command fetches them by tag or by digest, and refuses wrong ones
//! with a reason. Against Debian's `docker-registry` if it is installed; its recorded answers are replayed in
//! any case.

use serde_json::{Value, json};
use switchboard_tests::host::{Host, Options, free_address};
use switchboard_tests::registry::{Artifact, PASSWORD, Recorded, Registry, USER};
use switchboard_tests::release::Release;

/// A real registry, or a note that it is not installed.
async fn registry(has_door: bool) -> Option<Registry> {
    let registry = Registry::start(has_door).await;
    if registry.is_none() {
        println!("docker-registry is not installed: only the recorded exchange is tried");
    }
    registry
}

async fn deploy(host: &Host, source: &str) -> (i32, Value) {
    deploy_as(host, source, &[]).await
}

async fn deploy_as(host: &Host, source: &str, login: &[(&str, &str)]) -> (i32, Value) {
    let (code, answer) = host.switchboard_with(login, &["--json", "deploy", source]).await;
    (code, answer["deployed"][0].clone())
}

/// Checks for a refusal in one sentence; the running release continues.
async fn refused(host: &Host, source: &str, why: &str) {
    let before = host.admin.releases().await;
    let (code, answer) = deploy(host, source).await;
    let error = answer["error"].as_str().unwrap_or_default();
    assert!(code == 1 && error.contains(source) && error.contains(why), "{source}: {why}: {code} {answer}");
    assert_eq!(host.admin.releases().await, before, "{source}: the fleet has changed");
}

#[tokio::test]
async fn a_release_is_named_by_tag_or_by_digest() {
    let Some(registry) = registry(false).await else { return };
    Host::test(Options::default(), async |host| {
        let (first, second) = (Release::guest("moody"), Release::guest("moody").variant(2));
        let digest = registry.push("acme/moody", "1", &Artifact::of(&first.bytes)).await;
        registry.push("acme/moody", "latest", &Artifact::of(&second.bytes)).await;

        let (code, answer) = deploy(host, &registry.named("acme/moody:1")).await;
        assert_eq!((code, &answer["release"]), (0, &json!(first.digest())), "{answer}");
        assert_eq!(host.current("moody").await, first.digest());
        // Without a tag the name means `latest`; a digest is that of the manifest.
        assert_eq!(deploy(host, &registry.named("acme/moody")).await.1["release"], second.digest());
        let by_digest = registry.named(&format!("acme/moody@{digest}"));
        assert_eq!(deploy(host, &by_digest).await.1["release"], first.digest());
        assert_eq!(host.current("moody").await, first.digest());
    })
    .await;
}

#[tokio::test]
async fn an_error_of_a_registry_is_reported_and_changes_nothing() {
    let Some(registry) = registry(false).await else { return };
    Host::test(Options::default(), async |host| {
        let release = Release::guest("moody");
        host.admin.release(&release).await;
        let good = || Artifact::of(&release.bytes);
        let megabytes_33 = Some(33 * 1024 * 1024);
        for (tag, artifact) in [
            ("an-image", Artifact { config_type: "application/vnd.oci.image.config.v1+json", ..good() }),
            ("a-tarball", Artifact { layer_type: "application/vnd.oci.image.layer.v1.tar", ..good() }),
            ("two-layers", Artifact { layers: vec![release.bytes.clone(), b"more".to_vec()], ..good() }),
            ("huge", Artifact { size: megabytes_33, ..good() }),
            ("less-than-stated", Artifact { size: Some(release.bytes.len() + 1), ..good() }),
            ("more-than-stated", Artifact { size: Some(release.bytes.len() - 1), ..good() }),
            ("no-signature", Artifact { annotations: json!({"dev.switchboard.signatures": "x"}), ..good() }),
            ("no-release", Artifact::of(b"\0asm\x01\0\0\0")),
        ] {
            registry.push("acme/moody", tag, &artifact).await;
        }
        let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []});
        registry.push_manifest("acme/moody", "index", "application/vnd.oci.image.index.v1+json", &index).await;
        for (tag, why) in [
            ("acme/moody:nowhere", "no such release"),
            ("acme/nobody:1", "no such release"),
            ("acme/moody:an-image", "its configuration is of type"),
            ("acme/moody:a-tarball", "its layer is of type"),
            ("acme/moody:two-layers", "2 layers"),
            ("acme/moody:huge", "are more than"),
            ("acme/moody:less-than-stated", "sends fewer bytes"),
            ("acme/moody:more-than-stated", "sends more bytes"),
            ("acme/moody:no-signature", "has no signatures"),
            ("acme/moody:index", "an index of several manifests"),
        ] {
            refused(host, &registry.named(tag), why).await;
        }
        // The node refuses a file that is not a release, as for an upload.
        let (code, answer) = deploy(host, &registry.named("acme/moody:no-release")).await;
        assert!(code == 1 && answer["error"].as_str().unwrap_or_default().contains("component"), "{answer}");

        let tampered = release.variant(7);
        registry.push("acme/moody", "tampered", &Artifact::of(&tampered.bytes)).await;
        registry.tamper_with(&tampered.bytes);
        refused(host, &registry.named("acme/moody:tampered"), "the digest differs").await;

        let nobody = format!("oci://{}/acme/moody:1", free_address());
        refused(host, &nobody, "cannot be reached: cannot connect").await;
        refused(host, "oci://acme/moody:1", "has a dot or a port").await;
        assert_eq!(host.current("moody").await, release.digest());
    })
    .await;
}

#[tokio::test]
async fn a_protected_registry_needs_a_name_and_a_password() {
    let Some(registry) = registry(true).await else { return };
    Host::test(Options::default(), async |host| {
        let release = Release::guest("moody");
        registry.push("acme/moody", "1", &Artifact::of(&release.bytes)).await;
        let source = registry.named("acme/moody:1");
        refused(host, &source, "set SWITCHBOARD_REGISTRY_USER").await;
        let login =
            |password| [("SWITCHBOARD_REGISTRY_USER", USER), ("SWITCHBOARD_REGISTRY_PASSWORD", password)];
        let (code, answer) = deploy_as(host, &source, &login("wrong")).await;
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(code == 1 && error.contains("with that password") && !error.contains("wrong"), "{answer}");
        let (code, answer) = deploy_as(host, &source, &login(PASSWORD)).await;
        assert_eq!((code, &answer["release"]), (0, &json!(release.digest())), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn signatures_travel_with_the_artifact() {
    let Some(registry) = registry(false).await else { return };
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name).display().to_string();
    let release = Release::guest("moody");
    std::fs::write(place("moody.wasm"), &release.bytes).unwrap();
    Host::switchboard_alone(&["keys", &place("ours")]).await;
    Host::switchboard_alone(&["sign", &place("moody.wasm"), "--key", &place("ours.key")]).await;
    let signature = std::fs::read_to_string(place("moody.wasm.sig")).unwrap();
    let options =
        Options::default().set("RELEASE_KEYS", place("ours.pub")).set("HANDLERS_DIR", place("none"));
    std::fs::create_dir(place("none")).unwrap();
    Host::test(options, async |host| {
        registry.push("moody", "unsigned", &Artifact::of(&release.bytes)).await;
        let annotations = json!({"dev.switchboard.signatures": signature});
        registry.push("moody", "signed", &Artifact { annotations, ..Artifact::of(&release.bytes) }).await;
        let (code, answer) = deploy(host, &registry.named("moody:unsigned")).await;
        assert!(code == 1 && answer["error"].as_str().unwrap_or_default().contains("sign"), "{answer}");
        let (code, answer) = deploy(host, &registry.named("moody:signed")).await;
        assert_eq!((code, &answer["release"]), (0, &json!(release.digest())), "{answer}");
    })
    .await;
}

/// The answers of `docker-registry` 2.8.2 in registry.json; the layer is a module of eight bytes, which every
/// node refuses.
#[tokio::test]
async fn a_recorded_registry_is_understood() {
    let registry = Recorded::serve(include_str!("registry.json")).await;
    Host::test(Options::default(), async |host| {
        let (code, answer) = deploy(host, &format!("oci://{}/hello:1", registry.address)).await;
        // The download is complete and its digest is right: the node refuses it.
        assert!(code == 1 && answer["error"].as_str().unwrap_or_default().contains("component"), "{answer}");
        refused(host, &format!("oci://{}/hello:2", registry.address), "no such release").await;
    })
    .await;
}

/// Like public registries: the token is from a second host, and the blob on a third one, which gets no token.
#[tokio::test]
async fn a_token_is_fetched_and_stays_with_its_registry() {
    let recorded: Vec<Value> = serde_json::from_str(include_str!("registry.json")).unwrap();
    let blob = recorded[3].clone();
    let path = blob["request"].as_str().unwrap();
    let store = Recorded::serve(&json!([{
        "request": "GET /blobs/stored?signature=1", "status": 200, "headers": blob["headers"], "body": blob["body"],
    }]).to_string())
    .await;
    let asks = json!([["www-authenticate", "Bearer realm=\"http://{address}/token\",service=\"here\""]]);
    let led = |to: String| json!([["location", to], ["content-length", "0"]]);
    let with = |mut exchange: Value, authorization: &str| {
        exchange["authorization"] = json!(authorization);
        exchange
    };
    // Accepts `ci:correct horse` only.
    let login = "Basic Y2k6Y29ycmVjdCBob3JzZQ==";
    let token = "GET /token?scope=repository%3Ahello%3Apull&service=here";
    let registry = Recorded::serve(&json!([
        {"request": "GET /v2/hello/manifests/1", "status": 401, "headers": asks, "body": ""},
        {"request": token, "status": 200, "headers": [], "body": "{\"token\":\"of-nobody\"}"},
        {"request": token, "status": 200, "headers": [], "body": "{\"token\":\"of-ci\"}", "authorization": login},
        with(recorded[1].clone(), "Bearer of-ci"),
        {"request": "GET /v2/hello/manifests/1", "status": 401, "headers": asks, "body": "", "authorization": "Bearer of-nobody"},
        {"request": path, "status": 307, "headers": led(format!("http://{}/blobs/stored?signature=1", store.address)),
         "body": "", "authorization": "Bearer of-ci"},
        {"request": "GET /v2/round/manifests/1", "status": 302, "headers": led("/v2/round/manifests/1".to_owned()), "body": ""},
    ]).to_string())
    .await;
    Host::test(Options::default(), async |host| {
        let source = format!("oci://{}/hello:1", registry.address);
        refused(host, &source, "set SWITCHBOARD_REGISTRY_USER").await;
        let login = [("SWITCHBOARD_REGISTRY_USER", USER), ("SWITCHBOARD_REGISTRY_PASSWORD", PASSWORD)];
        let (code, answer) = deploy_as(host, &source, &login).await;
        // The download is complete; eight bytes are not a release.
        assert!(code == 1 && answer["error"].as_str().unwrap_or_default().contains("component"), "{answer}");
        refused(host, &format!("oci://{}/round:1", registry.address), "redirects more than").await;
    })
    .await;
}
