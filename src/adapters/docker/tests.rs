//! The engine against a scripted daemon on a socket of its own: the few endpoints it uses, each odd answer.

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as UrlPath, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{delete, get, post};
use futures_util::stream;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;

use super::*;
use crate::adapters::registry::scripted::{Image, Registry, impatient};
use crate::artifact::LegAttempt;
use crate::model::Fault;

/// The removal as the daemon is to be asked for it: anonymous volumes too, by force.
const REMOVED: &str = "remove v=true&force=true&link=false";

const SOCKET: &str = "docker.sock";

/// How the scripted daemon behaves; what it was asked is in `calls`.
#[derive(Debug, Clone)]
struct Script {
    /// Whether the image is there before a pull, and after one.
    is_present: (bool, bool),
    /// The digest it lists.
    listed: String,
    /// Status and body of the pull.
    pull: (u16, String),
    /// Status and message of create and start, where they fail.
    create_failure: Option<(u16, &'static str)>,
    start_failure: Option<(u16, &'static str)>,
    /// The container's output and its exit code, where it exits by itself.
    output: &'static str,
    exits_with: Option<i64>,
    /// Whether waiting for the exit is cut off without an answer.
    is_wait_cut: bool,
    /// A setting of the container that is another one than was asked for.
    changes: Option<(&'static str, Value)>,
    /// What the image says of itself.
    image: Value,
    /// The containers that it lists: id and holder.
    containers: Vec<(&'static str, String)>,
    /// The images that are there besides: id, names, and when each was named last.
    kept: Vec<(&'static str, Vec<String>, &'static str)>,
    /// The id of one that a container is made of.
    used: &'static str,
}

struct Daemon {
    script: Script,
    /// Names that were taken from images.
    forgotten: Mutex<Vec<String>>,
    is_pulled: Mutex<bool>,
    calls: watch::Sender<Vec<String>>,
    created: Mutex<Value>,
    removed: Mutex<Vec<String>>,
    /// The exit code, once the container has ended.
    ended: watch::Sender<Option<i64>>,
    /// Whether it goes on to tell its events.
    lives: watch::Sender<bool>,
}

/// A running daemon and an engine that knows it.
struct Bench {
    dir: tempfile::TempDir,
    daemon: Arc<Daemon>,
    engine: DockerEngine,
    serving: JoinSet<()>,
}

fn digest(byte: u8) -> Digest {
    format!("sha256:{}", hex::encode([byte; 32])).parse().unwrap()
}

fn script() -> Script {
    Script {
        is_present: (false, true),
        listed: digest(1).to_string(),
        pull: (200, "{\"status\":\"Pulling\"}\n{\"status\":\"Done\"}\n".to_owned()),
        create_failure: None,
        start_failure: None,
        output: "",
        exits_with: None,
        is_wait_cut: false,
        changes: None,
        image: json!({}),
        containers: Vec::new(),
        kept: Vec::new(),
        used: "none",
    }
}

fn refused(status: u16, message: &str) -> Response {
    (StatusCode::from_u16(status).unwrap(), Json(json!({"message": message}))).into_response()
}

impl Daemon {
    fn call(&self, what: impl Into<String>) {
        self.calls.send_modify(|calls| calls.push(what.into()));
    }

    /// Waits until it was asked this.
    async fn was_asked(&self, what: &str) -> Vec<String> {
        let mut calls = self.calls.subscribe();
        let asked = calls.wait_for(|calls| calls.iter().any(|call| call == what));
        let asked = tokio::time::timeout(Duration::from_secs(30), asked).await;
        asked.unwrap_or_else(|_| panic!("`{what}` is not in {:?}", self.calls.borrow())).unwrap().clone()
    }

    fn router(self: Arc<Self>) -> Router {
        type Shared = State<Arc<Daemon>>;
        let pull = async |State(daemon): Shared| {
            daemon.call("pull");
            *daemon.is_pulled.lock().unwrap() = true;
            let (status, body) = daemon.script.pull.clone();
            (StatusCode::from_u16(status).unwrap(), body)
        };
        let tag = async |State(daemon): Shared, RawQuery(query): RawQuery| {
            daemon.call(format!("tag {}", query.unwrap_or_default()));
            StatusCode::CREATED
        };
        let forget = async |State(daemon): Shared, UrlPath(name): UrlPath<String>| {
            daemon.call(format!("forget {name}"));
            daemon.forgotten.lock().unwrap().push(name);
            Json(json!([]))
        };
        let list = async |State(daemon): Shared| {
            let forgotten = daemon.forgotten.lock().unwrap().clone();
            let listed: Vec<Value> =
                daemon
                    .script
                    .kept
                    .iter()
                    .filter_map(|(id, names, _)| {
                        let left = names.iter().filter(|name| !forgotten.contains(name));
                        let (digests, tags): (Vec<&String>, Vec<&String>) =
                            left.partition(|name| name.contains('@'));
                        let is_there = !(digests.is_empty() && tags.is_empty());
                        is_there.then(|| json!({
                    "Id": id, "ParentId": "", "RepoTags": tags, "RepoDigests": digests, "Created": 0,
                    "Size": 0, "SharedSize": -1, "Labels": {}, "Containers": -1,
                }))
                    })
                    .collect();
            Json(listed)
        };
        let containers = async |State(daemon): Shared, RawQuery(query): RawQuery| {
            let query = query.unwrap_or_default();
            assert!(query.contains("all=true"), "{query}");
            if !query.contains("cacheon%3D1") {
                return Json(if query.contains(daemon.script.used) {
                    json!([{"Id": "0"}])
                } else {
                    json!([])
                });
            }
            let removed = daemon.removed.lock().unwrap();
            let left =
                daemon.script.containers.iter().filter(|(id, _)| !removed.iter().any(|gone| gone == id));
            let container = |(id, holder): &(&str, String)| {
                let labels = json!({"cacheon": "1", "cacheon.holder": holder, "cacheon.round": "r"});
                json!({"Id": id, "Names": [format!("/{id}")], "State": "running", "Labels": labels})
            };
            Json(left.map(container).collect::<Value>())
        };
        let image = async |State(daemon): Shared, UrlPath(name): UrlPath<String>| {
            let id = name.trim_end_matches("/json");
            if let Some((_, names, used_at)) = daemon.script.kept.iter().find(|(found, ..)| *found == id) {
                return Json(json!({"Id": id, "RepoTags": names, "Metadata": {"LastTagTime": used_at}}))
                    .into_response();
            }
            let (before, after) = daemon.script.is_present;
            if if *daemon.is_pulled.lock().unwrap() { after } else { before } {
                let name = format!("miner/server@{}", daemon.script.listed);
                let mut image = daemon.script.image.clone();
                image["Id"] = "sha256:0".into();
                image["RepoDigests"] = json!([name]);
                Json(image).into_response()
            } else {
                refused(404, "No such image")
            }
        };
        let create = async |State(daemon): Shared, Json(body): Json<Value>| {
            *daemon.created.lock().unwrap() = body;
            match daemon.script.create_failure {
                Some((status, message)) => refused(status, message),
                None => (StatusCode::CREATED, Json(json!({"Id": "0123456789abcdef", "Warnings": []})))
                    .into_response(),
            }
        };
        let start = async |State(daemon): Shared| {
            daemon.call("start");
            daemon.ended.send_replace(daemon.script.exits_with);
            match daemon.script.start_failure {
                Some((status, message)) => refused(status, message),
                None => StatusCode::NO_CONTENT.into_response(),
            }
        };
        let inspect = async |State(daemon): Shared| {
            let ended = *daemon.ended.borrow();
            let mut created = daemon.created.lock().unwrap().clone();
            if let Some((key, value)) = &daemon.script.changes {
                created["HostConfig"][*key] = value.clone();
            }
            Json(json!({
                "Id": "0123456789abcdef",
                "State": {
                    "Running": ended.is_none(),
                    "ExitCode": ended.unwrap_or(0),
                    "OOMKilled": ended == Some(137),
                },
                "HostConfig": created["HostConfig"],
                "Config": { "User": created["User"], "Labels": created["Labels"] },
            }))
        };
        let attach = async |State(daemon): Shared, request: axum::extract::Request| {
            let output = daemon.script.output.as_bytes();
            let frame =
                [&[1, 0, 0, 0], &u32::try_from(output.len()).unwrap().to_be_bytes()[..], output].concat();
            let mut ended = daemon.ended.subscribe();
            tokio::spawn(async move {
                let mut stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
                stream.write_all(&frame).await.unwrap();
                let _ = ended.wait_for(Option::is_some).await;
                stream.shutdown().await
            });
            (StatusCode::SWITCHING_PROTOCOLS, [("connection", "Upgrade"), ("upgrade", "tcp")])
        };
        let wait = async |State(daemon): Shared| {
            if daemon.script.is_wait_cut {
                return Body::empty();
            }
            let code = *daemon.ended.subscribe().wait_for(Option::is_some).await.unwrap();
            Body::from(format!("{}\n", json!({"StatusCode": code})))
        };
        let events = async |State(daemon): Shared, RawQuery(query): RawQuery| {
            assert_eq!(query.as_deref(), Some("filters=%7B%22type%22%3A%5B%22daemon%22%5D%7D"));
            let mut lives = daemon.lives.subscribe();
            let end = async move {
                let _ = lives.wait_for(|lives| !lives).await;
                Ok::<_, Infallible>(Vec::new())
            };
            Body::from_stream(stream::once(end))
        };
        let stats = async |State(daemon): Shared, RawQuery(query): RawQuery| {
            daemon.call(format!("stats {}", query.unwrap_or_default()));
            let is_running = daemon.ended.borrow().is_none();
            let used = if is_running { 2_500_000_000_u64 } else { 0 };
            Json(json!({"cpu_stats": {"cpu_usage": {"total_usage": used}}}))
        };
        let stop = async |State(daemon): Shared, RawQuery(query): RawQuery| {
            daemon.call(format!("stop {}", query.unwrap_or_default()));
            daemon.ended.send_replace(Some(143));
            StatusCode::NO_CONTENT
        };
        let remove =
            async |State(daemon): Shared, UrlPath(id): UrlPath<String>, RawQuery(query): RawQuery| {
                daemon.removed.lock().unwrap().push(id);
                daemon.call(format!("remove {}", query.unwrap_or_default()));
                StatusCode::NO_CONTENT
            };
        Router::new()
            .route("/images/create", post(pull))
            .route("/images/json", get(list))
            .route("/containers/json", get(containers))
            .route("/info", get(Json(json!({}))))
            .route("/_ping", get("OK"))
            .route("/events", get(events))
            .route("/images/{*name}", get(image).post(tag).delete(forget))
            .route("/containers/create", post(create))
            .route("/containers/{id}/start", post(start))
            .route("/containers/{id}/json", get(inspect))
            .route("/containers/{id}/attach", post(attach))
            .route("/containers/{id}/wait", post(wait))
            .route("/containers/{id}/stats", get(stats))
            .route("/containers/{id}/stop", post(stop))
            .route("/containers/{id}", delete(remove))
            .with_state(self)
    }
}

fn bench(script: Script) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, serving) = served(script, dir.path());
    let engine = engine_at(&dir.path().join(SOCKET), Limits::default());
    Bench { dir, daemon, engine, serving }
}

/// A scripted daemon in this folder.
fn served(script: Script, dir: &Path) -> (Arc<Daemon>, JoinSet<()>) {
    let daemon = Arc::new(Daemon {
        script,
        is_pulled: Mutex::new(false),
        forgotten: Mutex::default(),
        calls: watch::Sender::default(),
        created: Mutex::new(Value::Null),
        removed: Mutex::default(),
        ended: watch::Sender::default(),
        lives: watch::Sender::new(true),
    });
    let listener = tokio::net::UnixListener::bind(dir.join(SOCKET)).unwrap();
    let router = Arc::clone(&daemon).router();
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (daemon, serving)
}

fn engine_at(socket: &Path, limits: Limits) -> DockerEngine {
    let host = Some(format!("unix://{}", socket.display()));
    let (patience, pulls_dir) = (impatient(), socket.with_file_name("pulls"));
    let program = "/bin/true".into();
    DockerEngine::new(DockerSettings { host, limits, program, patience, pulls_dir, ..Default::default() })
}

impl Bench {
    /// Puts another daemon in the place of this one.
    fn serve(&mut self, script: Script) {
        std::fs::remove_file(self.dir.path().join(SOCKET)).unwrap();
        (self.daemon, self.serving) = served(script, self.dir.path());
    }

    /// How often the daemon was asked to pull.
    fn pulls(&self) -> String {
        format!("{} pulls", self.daemon.calls.borrow().iter().filter(|call| *call == "pull").count())
    }

    fn launch(&self) -> Launch {
        let at = LegAttempt { job: "read".to_owned(), leg: "5A/1".to_owned(), attempt: 2 };
        let round_id = "r-1".parse().unwrap();
        Launch {
            id: LaunchId { round_id, at, number: 1 },
            image: "miner/server".parse().unwrap(),
            digest: digest(1),
            model_dir: "/srv/model".into(),
            model_name: "reference".to_owned(),
            args: Vec::new(),
            log_path: self.dir.path().join("server.log"),
            max_log_bytes: 1024,
            scratch_dir: "/tmp/scratch-1/server".into(),
        }
    }
}

/// Pulls an image that a registry has, and asserts how that ends.
async fn check_pull(script: Script, expected: &str) {
    let registry = Registry::start().await;
    let digest = registry.push(&Image::default());
    let listed = if script.listed == self::digest(1).as_str() { digest.to_string() } else { script.listed };
    let bench = bench(Script { listed, ..script });
    let found = match bench.engine.pull(&registry.image(), &digest, &|_, _| ()).await {
        Ok(_) => bench.pulls(),
        Err(error) => error.reason().code,
    };
    assert_eq!(found, expected, "{:?}", bench.daemon.script);
}

#[tokio::test]
async fn a_pull_ends_with_the_image_or_with_whose_fault_it_is() {
    let check = async |change: &dyn Fn(&mut Script), expected: &str| {
        let mut script = script();
        change(&mut script);
        check_pull(script, expected).await;
    };
    check(&|_| {}, "1 pulls").await;
    check(&|script| script.is_present = (true, true), "0 pulls").await;
    // Another image under our name is pulled over.
    check(
        &|script| (script.is_present, script.listed) = ((true, true), digest(2).to_string()),
        "container-engine",
    )
    .await;
    check(&|script| script.listed = "nonsense".to_owned(), "container-engine").await;
    check(&|script| script.is_present = (false, false), "container-engine").await;
    check(&|script| script.pull = (200, "no JSON\n".to_owned()), "container-engine").await;
}

#[tokio::test]
async fn the_daemon_is_not_asked_for_what_the_registry_has_not() {
    let registry = Registry::start().await;
    let bench = bench(script());
    let error = bench.engine.pull(&registry.image(), &digest(1), &|_, _| ()).await.unwrap_err();
    assert_eq!(error.reason().code, "image-unavailable");
    assert_eq!(bench.daemon.calls.borrow().len(), 0);
}

#[tokio::test]
async fn the_images_that_were_not_used_for_longest_go_first() {
    let registry = Registry::start().await;
    let digest = registry.push(&Image::default());
    let name = |what: &str| format!("cacheon.invalid/image:{what}");
    let served = |byte| format!("127.0.0.1:7/cacheon/pulled@{}", self::digest(byte));
    let kept = vec![
        ("a", vec![name("a"), served(1)], "2026-01-03T00:00:00.5Z"),
        ("b", vec![name("b"), served(2)], "2026-01-02T00:00:00+01:00"),
        ("c", vec![name("c")], "2026-01-01T00:00:00Z"),
        // Left by a pull that was interrupted before it had a name.
        ("d", vec![served(3)], "0001-01-01T00:00:00Z"),
        (
            "e",
            vec!["cacheon.invalid/images:x".to_owned(), format!("127.0.0.1:5000/a@{}", self::digest(4))],
            "2025-01-01T00:00:00Z",
        ),
    ];
    let forgotten = async |most: Option<u32>, used: &'static str| {
        let script = Script { listed: digest.to_string(), kept: kept.clone(), used, ..script() };
        let bench = bench(script);
        let limits = Limits { kept_images: most, ..Limits::default() };
        let engine = engine_at(&bench.dir.path().join("docker.sock"), limits);
        engine.pull(&registry.image(), &digest, &|_, _| ()).await.unwrap();
        bench.daemon.forgotten.lock().unwrap().clone()
    };
    assert_eq!(forgotten(None, "none").await, [""; 0]);
    assert_eq!(forgotten(Some(4), "none").await, [""; 0]);
    assert_eq!(forgotten(Some(3), "none").await, [served(3)]);
    assert_eq!(forgotten(Some(1), "none").await, [served(3), name("c"), name("b"), served(2)]);
    assert_eq!(forgotten(Some(3), "%22d%22").await, [name("c")]);
    assert_eq!(forgotten(Some(0), "%22a%22").await, [served(3), name("c"), name("b"), served(2)]);
    // Where a disk has no room all go that may, and then it is nobody's fault but the machine's.
    let mut manifest = Image::default().manifest();
    manifest["layers"][0]["size"] = (1_u64 << 60).into();
    let digest = registry.push_manifest(&manifest);
    let bench = bench(Script { kept, used: "%22a%22", ..script() });
    let limits = Limits { image_mib: Some(1 << 50), ..Limits::default() };
    let engine = engine_at(&bench.dir.path().join("docker.sock"), limits);
    let error = engine.pull(&registry.image(), &digest, &|_, _| ()).await.unwrap_err();
    assert_eq!((error.reason().fault, error.reason().code.as_str()), (Fault::Infra, "no-room"), "{error}");
    assert_eq!(*bench.daemon.forgotten.lock().unwrap(), [served(3), name("c"), name("b"), served(2)]);
}

#[tokio::test]
async fn an_image_larger_than_the_runner_allows_is_refused() {
    let registry = Registry::start().await;
    let digest = registry.push(&Image::of(vec![0; 2 << 20]));
    let check = async |mib: u64, size: u64, is_there: bool, expected: &str| {
        let image = json!({"Size": size});
        let listed = digest.to_string();
        let bench = bench(Script { is_present: (is_there, true), listed, image, ..script() });
        let limits = Limits { image_mib: Some(mib), ..Limits::default() };
        let engine = engine_at(&bench.dir.path().join("docker.sock"), limits);
        let found = match engine.pull(&registry.image(), &digest, &|_, _| ()).await {
            Ok(_) => bench.pulls(),
            Err(error) => format!("{}, {}", bench.pulls(), error.reason().code),
        };
        assert_eq!(found, expected, "{mib} MiB allowed, {size} bytes there");
    };
    check(2, 2 << 20, false, "1 pulls").await;
    check(1, 2 << 20, false, "0 pulls, image-too-large").await;
    // By what it is when it is there, too.
    check(2, 3 << 20, false, "1 pulls, image-too-large").await;
    check(2, 3 << 20, true, "0 pulls, image-too-large").await;
}

#[test]
fn content_is_what_would_run() {
    let image = |layer: &str, config: Value| {
        let found = json!({
            "RootFS": {"Type": "layers", "Layers": [digest(7), layer]},
            "Config": config,
            "Author": "somebody",
        });
        content(&serde_json::from_value(found).unwrap(), &digest(1))
    };
    let own = image("sha256:1", json!({"Cmd": ["serve"], "Env": ["A=1"], "Labels": {"a": "b"}}));
    assert_eq!(own, image("sha256:1", json!({"Cmd": ["serve"], "Env": ["A=1"]})));
    assert_ne!(own, image("sha256:2", json!({"Cmd": ["serve"], "Env": ["A=1"]})));
    assert_ne!(own, image("sha256:1", json!({"Cmd": ["serve"], "Env": ["A=2"]})));
    assert_ne!(own, image("sha256:1", json!({"Entrypoint": ["serve"], "Env": ["A=1"]})));
    // An engine that does not say is believed the digest, which it has checked.
    assert_eq!(content(&bollard::models::ImageInspect::default(), &digest(1)), digest(1));
}

#[tokio::test]
async fn what_fails_in_the_daemon_is_its_own_but_for_files_that_cannot_be_made() {
    let check = async |status: u16, words: &str, expected: &str| {
        let body = match status {
            200 => json!({"errorDetail": {"message": words}, "error": words}),
            _ => json!({"message": words}),
        };
        let script = Script { is_present: (false, false), pull: (status, format!("{body}\n")), ..script() };
        check_pull(script, expected).await;
    };
    let unpacking = "failed to register layer: Error processing tar file(exit status 1): ";
    check(200, &format!("{unpacking}link /a /b: no such file or directory"), "image-invalid").await;
    check(200, &format!("{unpacking}write /x: no space left on device"), "container-engine").await;
    check(404, "manifest unknown", "container-engine").await;
    check(500, "received unexpected HTTP status: 503 Service Unavailable", "container-engine").await;
    check(500, "Get \"http://127.0.0.1:1/v2/\": dial tcp: connect: connection refused", "container-engine")
        .await;
    check(200, "write /var/lib/docker/tmp/x: no space left on device", "container-engine").await;
    check(500, "words nobody knows", "container-engine").await;
}

#[tokio::test]
async fn an_image_is_pulled_from_here_and_named_by_us() {
    let registry = Registry::start().await;
    let digest = registry.push(&Image::default());
    let bench = bench(Script { listed: digest.to_string(), ..script() });
    bench.engine.pull(&registry.image(), &digest, &|_, _| ()).await.unwrap();
    let own = pinned(&registry.image(), &digest);
    let calls = bench.daemon.calls.borrow().clone();
    let named = format!("tag repo={}", own.replace('/', "%2F").replace(':', "&tag="));
    assert_eq!(calls, ["pull".to_owned(), named]);
    // Another repository's is another image, although nothing differs in it.
    assert_ne!(pinned(&"other/image".parse().unwrap(), &digest), own);
    let left = std::fs::read_dir(bench.dir.path().join("pulls")).unwrap().count();
    assert_eq!(left, 1, "the lock alone is left");
}

#[tokio::test]
async fn a_daemon_that_is_gone_is_nobodys_submission() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let engine = engine_at(&socket, Limits::default());
    let (image, digest) = ("miner/server".parse().unwrap(), digest(1));
    let check = async |expected: &str| {
        let reason = engine.pull(&image, &digest, &|_, _| ()).await.unwrap_err().reason();
        assert_eq!((reason.fault, reason.code.as_str()), (Fault::Infra, "container-engine"));
        assert!(reason.message.contains(expected), "{}", reason.message);
    };
    check("Socket not found").await;
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    check("Connection refused").await;
}

#[tokio::test]
async fn a_container_is_created_with_everything_closed() {
    let bench = bench(Script { is_present: (true, true), ..script() });
    let limits = Limits {
        cpus: Some(8),
        memory_mib: Some(1024),
        pids: Some(64),
        tmpfs_mib: Some(32),
        ..Limits::default()
    };
    let engine = engine_at(&bench.dir.path().join(SOCKET), limits);
    let server = engine.launch(&bench.launch()).await.unwrap();
    // This daemon's container has no process, so there is no way to it.
    assert_eq!(server.connector().address().port(), 0);
    assert_eq!(server.boot_id(), "0123456789ab");
    let created = bench.daemon.created.lock().unwrap().clone();
    let expected = json!({
        "Image": pinned(&bench.launch().image, &digest(1)),
        "Env": [
            "CACHEON_HOST=0.0.0.0",
            "CACHEON_PORT=8000",
            "CACHEON_MODEL_DIR=/models",
            "CACHEON_MODEL_NAME=reference",
            "HOME=/tmp",
            "NVIDIA_VISIBLE_DEVICES=void",
        ],
        "User": "10001:10001",
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {
            "cacheon": "1",
            "cacheon.holder": engine.held().await.unwrap().holder.to_string(),
            "cacheon.round": "r-1",
            "cacheon.job": "read",
            "cacheon.leg": "5A/1",
            "cacheon.attempt": "2",
            "cacheon.launch": "1",
            "cacheon.scratch": "/tmp/scratch-1/server",
        },
        "StopSignal": "SIGTERM",
        "HostConfig": {
            "NetworkMode": "none",
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Privileged": false,
            "ReadonlyRootfs": true,
            "Tmpfs": {"/tmp": "rw,nosuid,nodev,exec,size=32m,mode=1777"},
            "Mounts": [{"Type": "bind", "Source": "/srv/model", "Target": "/models", "ReadOnly": true}],
            "PidsLimit": 64,
            "Memory": 1_073_741_824,
            "MemorySwap": 1_073_741_824,
            "NanoCpus": 8_000_000_000_i64,
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
            "Init": true,
            "LogConfig": {"Type": "none"},
            "RestartPolicy": {"Name": "no"},
        },
    });
    assert_eq!(created, expected);
}

#[tokio::test]
async fn gpus_runtime_and_processors_are_asked_for_by_name() {
    let check = async |gpus: &[&str], devices: &str, request: Value| {
        let bench = bench(Script { is_present: (true, true), ..script() });
        let mut engine = engine_at(&bench.dir.path().join(SOCKET), Limits::default());
        engine.settings.runtime = Some("runsc".to_owned());
        engine.settings.limits.cpuset = Some("8000-8001".parse().unwrap());
        engine.settings.gpus = Some(Gpus::new(gpus.iter().map(ToString::to_string).collect()).unwrap());
        let _server = engine.launch(&bench.launch()).await.unwrap();
        let created = bench.daemon.created.lock().unwrap();
        let env = created["Env"].as_array().unwrap();
        assert!(env.contains(&format!("NVIDIA_VISIBLE_DEVICES={devices}").into()), "{env:?}");
        let host = &created["HostConfig"];
        assert_eq!((&host["Runtime"], &host["CpusetCpus"]), (&json!("runsc"), &json!("8000-8001")));
        assert_eq!(host["DeviceRequests"], json!([request]));
    };
    let capabilities = json!([["gpu", "compute", "utility"]]);
    let hook = json!({"Driver": "nvidia", "DeviceIDs": ["0", "3"], "Capabilities": capabilities});
    check(&["0", "3"], "0,3", hook).await;
    check(&["nvidia.com/gpu=1"], "void", json!({"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=1"]})).await;
}

#[tokio::test]
async fn servers_and_client_do_not_share_processors() {
    let own = own_processors().unwrap();
    let bench = bench(Script { is_present: (true, true), ..script() });
    let mut engine = engine_at(&bench.dir.path().join(SOCKET), Limits::default());
    engine.settings.limits.cpuset = Some(own.clone());
    let refused = engine.launch(&bench.launch()).await.err().unwrap().reason();
    assert_eq!((refused.fault, refused.code.as_str()), (Fault::Infra, "container-engine"));
    assert!(refused.message.ends_with(": leave some to this program"), "{refused}");
    let list = |text: &str| text.parse::<CpuList>().unwrap();
    assert_eq!(why_shared(&list("0-3"), &list("4-7")), None);
    let why = why_shared(&list("0-7"), &list("4-7")).unwrap();
    assert!(why.ends_with("runs on 4-7 of these: start this program by `taskset --cpu-list 0-3`"), "{why}");
}

#[tokio::test]
async fn a_container_that_is_not_as_asked_is_not_started() {
    for (key, value) in [
        ("NetworkMode", json!("default")),
        ("CapDrop", Value::Null),
        ("ReadonlyRootfs", json!(false)),
        ("PidsLimit", json!(0)),
        ("SecurityOpt", json!([])),
    ] {
        let bench = bench(Script { is_present: (true, true), changes: Some((key, value)), ..script() });
        let error = bench.engine.launch(&bench.launch()).await.err().unwrap();
        assert_eq!(error.reason().code, "container-engine");
        let said = error.to_string();
        assert!(said.contains("did not do what it was asked") && said.contains(key), "{said}");
        assert!(!bench.daemon.calls.borrow().iter().any(|call| call == "start"), "{key}");
    }
}

#[tokio::test]
async fn an_image_that_asks_for_what_no_container_gets_is_refused() {
    let check = async |image: Value, expected: Option<&str>| {
        let bench = bench(Script { is_present: (true, true), image: image.clone(), ..script() });
        let pulled = bench.engine.pull(&bench.launch().image, &digest(1), &|_, _| ()).await.map(|_| ());
        let launched = bench.engine.launch(&bench.launch()).await.map(|_| ());
        for outcome in [pulled, launched] {
            match (outcome, expected) {
                (Ok(()), None) => {}
                (Err(error), Some(words)) => {
                    assert_eq!(error.reason().code, "image-invalid", "{error}");
                    assert!(error.to_string().contains(words), "{error}");
                }
                (outcome, _) => panic!("{image}: {outcome:?}"),
            }
        }
    };
    check(json!({"Os": "linux", "Config": {"Volumes": {}, "Env": ["LD_LIBRARY_PATH=/x"]}}), None).await;
    check(json!({"Config": {"Volumes": {"/data": {}}}}), Some("`VOLUME /data`")).await;
    check(json!({"Config": {"Env": ["A=b", "LD_PRELOAD=/x.so"]}}), Some("`LD_PRELOAD`")).await;
    check(
        json!({"Config": {"Env": ["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_GDS=enabled"]}}),
        Some("`NVIDIA_GDS`"),
    )
    .await;
    check(json!({"Config": {"Env": ["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_REQUIRE_CUDA=cuda>=12"]}}), None)
        .await;
    check(json!({"Os": "linux", "Architecture": "s390x"}), Some("it is for linux/s390x")).await;
    check(json!({"Os": "windows"}), Some("it is for windows/")).await;
}

#[tokio::test]
async fn bounds_hold_where_the_runner_names_none() {
    let bench = bench(Script { is_present: (true, true), ..script() });
    let _server = bench.engine.launch(&bench.launch()).await.unwrap();
    let host = bench.daemon.created.lock().unwrap()["HostConfig"].clone();
    assert_eq!(host["PidsLimit"], 16_384);
    assert_eq!(host["Tmpfs"]["/tmp"], "rw,nosuid,nodev,exec,size=8192m,mode=1777");
    assert_eq!((&host["Memory"], &host["NanoCpus"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn an_exit_before_ready_is_seen_with_its_last_words() {
    for is_wait_cut in [false, true] {
        let script = Script {
            is_present: (true, true),
            output: "no such model\u{1b}[0m\n",
            exits_with: Some(3),
            is_wait_cut,
            ..script()
        };
        let bench = bench(script);
        let mut server = bench.engine.launch(&bench.launch()).await.unwrap();
        assert_eq!(server.exited().await, Exit { code: Some(3), ..Exit::default() });
        assert_eq!(server.log_tail(), "no such model\n");
        assert_eq!(tokio::fs::read(bench.launch().log_path).await.unwrap(), b"no such model\x1b[0m\n");
    }
}

#[tokio::test]
async fn who_took_too_much_memory_is_told_from_who_was_killed() {
    let bench = bench(Script { is_present: (true, true), exits_with: Some(137), ..script() });
    let mut server = bench.engine.launch(&bench.launch()).await.unwrap();
    assert_eq!(server.exited().await, Exit { code: Some(137), is_out_of_memory: true, ..Exit::default() });
}

#[tokio::test]
async fn a_daemon_that_was_started_anew_is_why_its_containers_ended() {
    let mut bench = bench(Script { is_present: (true, true), exits_with: Some(137), ..script() });
    let mut server = bench.engine.launch(&bench.launch()).await.unwrap();
    while bench.daemon.lives.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.exited().await.code, Some(137));
    // It was there all the time, and it is.
    assert_eq!(server.engine_failure().await, None);
    bench.daemon.lives.send_replace(false);
    bench.serve(script());
    let failure = loop {
        if let Some(failure) = server.engine_failure().await {
            break failure;
        }
        tokio::task::yield_now().await;
    };
    assert!(failure.contains("started anew"), "{failure}");
    // One that takes no connections is gone, or about to go.
    std::fs::remove_file(bench.dir.path().join(SOCKET)).unwrap();
    let failure = server.engine_failure().await.unwrap();
    assert!(failure.starts_with("the daemon does not answer: "), "{failure}");
}

#[tokio::test]
async fn a_container_that_cannot_run_is_told_apart_and_removed() {
    let check =
        async |create: Option<(u16, &'static str)>, start: Option<(u16, &'static str)>, expected: &str| {
            let script =
                Script { is_present: (true, true), create_failure: create, start_failure: start, ..script() };
            let bench = bench(script);
            let error = bench.engine.launch(&bench.launch()).await.err().unwrap();
            assert_eq!(error.reason().code, expected);
            if start.is_some() {
                bench.daemon.was_asked(REMOVED).await;
            }
        };
    check(Some((400, "No command specified")), None, "image-invalid").await;
    check(Some((400, "Unknown runtime specified nvidia")), None, "container-engine").await;
    let missing =
        "OCI runtime create failed: exec: \"/serve\": stat /serve: no such file or directory: unknown";
    check(None, Some((400, missing)), "image-invalid").await;
    check(
        None,
        Some((500, "nvidia-container-cli: initialization error: driver not loaded")),
        "container-engine",
    )
    .await;
}

#[tokio::test]
async fn an_image_that_was_not_pulled_is_not_launched() {
    let bench = bench(Script { is_present: (false, false), ..script() });
    let error = bench.engine.launch(&bench.launch()).await.err().unwrap();
    assert_eq!(error.reason().fault, Fault::Infra);
    assert!(error.to_string().contains("`pull` step"), "{error}");
}

#[tokio::test]
async fn what_a_container_has_used_is_known_while_it_runs() {
    let bench = bench(Script { is_present: (true, true), ..script() });
    let server = bench.engine.launch(&bench.launch()).await.unwrap();
    assert_eq!(server.cpu_time().await, Some(Duration::from_millis(2500)));
    bench.daemon.ended.send_replace(Some(0));
    assert_eq!(server.cpu_time().await, None);
}

#[tokio::test]
async fn stopping_asks_then_removes() {
    let bench = bench(Script { is_present: (true, true), ..script() });
    let server = bench.engine.launch(&bench.launch()).await.unwrap();
    server.stop(Duration::from_millis(1500)).await;
    assert_eq!(*bench.daemon.calls.borrow(), ["start", "stop t=2", REMOVED]);
}

#[tokio::test]
async fn a_dropped_server_is_removed() {
    let bench = bench(Script { is_present: (true, true), ..script() });
    drop(bench.engine.launch(&bench.launch()).await.unwrap());
    let calls = bench.daemon.was_asked(REMOVED).await;
    assert_eq!(calls, ["start", REMOVED]);
}

/// Holders of this machine that have ended, and that cannot be told to have.
fn others() -> (String, String) {
    let own = Holder::new().unwrap().to_string();
    let parts: Vec<&str> = own.split('/').collect();
    let [boot, namespace, pid, started, _] = parts[..] else { panic!("{own}") };
    (format!("{boot}/{namespace}/{pid}/1/0"), format!("{boot}/0/{pid}/{started}/0"))
}

#[tokio::test]
async fn what_nobody_holds_is_removed_before_a_launch() {
    let (dead, unclear) = others();
    let own = Holder::new().unwrap().to_string();
    let containers = vec![("a", dead), ("b", own)];
    let bench = bench(Script { containers, is_present: (true, true), ..script() });
    let server = bench.engine.launch(&bench.launch()).await;
    assert!(server.is_ok());
    assert_eq!(*bench.daemon.removed.lock().unwrap(), ["a"]);

    for holder in [unclear, "nonsense".to_owned()] {
        let bench =
            self::bench(Script { containers: vec![("c", holder)], is_present: (true, true), ..script() });
        let refused = bench.engine.launch(&bench.launch()).await.map(drop).unwrap_err();
        assert_eq!(refused.reason().code, "container-engine");
        assert!(refused.to_string().contains("docker rm -f c"), "{refused}");
        assert!(bench.daemon.removed.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_a_holder_has_is_gone_when_the_engine_is_closed() {
    let (dead, _) = others();
    let mut bench = bench(Script { is_present: (true, true), ..script() });
    // One that launched nothing has nothing to close.
    bench.engine.close().await.unwrap();
    let own = bench.engine.held().await.unwrap().holder.to_string();
    bench.serve(Script { containers: vec![("a", own), ("b", dead)], is_present: (true, true), ..script() });
    drop(bench.engine.launch(&bench.launch()).await.unwrap());
    bench.engine.close().await.unwrap();
    let removed = bench.daemon.removed.lock().unwrap();
    // Of the dead one at the launch; what was dropped; what was there under its name.
    assert_eq!(*removed, ["b", "0123456789abcdef", "a"]);
}
