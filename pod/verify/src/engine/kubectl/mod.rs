//! The native Pod of `deploy/kubernetes`, in a cluster that is named.
//!
//! Everything is in a namespace of its own, which enforces Pod Security `restricted` and is deleted in the end. Killing a
//! container from outside takes a look at a node's processes, which no restricted Pod may have: for that there is a second
//! namespace, for a moment.

mod context;
mod forward;
mod pull;
mod stream;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde_json::{Value, json};
use testkit::http::{Connection, Message};

pub use self::context::Context;
use self::forward::Forward;
use self::stream::LogStream;
use super::command::{clean_up, feed, run_prepared, text};
use super::kustomize::{Images, Kustomization};
use super::{Confinement, Containers, Engine, Name, in_order, until_it_serves};

/// From the first manifest to a Pod that serves; images may have to be pulled.
const STARTUP: Duration = Duration::from_secs(180);
/// How long the cluster may take to do what it is told, besides that.
const BUDGET: Duration = Duration::from_secs(120);
const TIMEOUT: &str = "--timeout=120s";
/// Until an edit of the ConfigMap is on the content manager's volume.
const REMOUNT: Duration = Duration::from_secs(90);
/// Until the kubelet is reminded of it.
const TOUCH_AGAIN: Duration = Duration::from_secs(3);

const POD: &str = "app.kubernetes.io/name=sidecar-pod";
const CONTENT_MANAGER: &str = "app.kubernetes.io/name=content-manager";
const CONTENT_PORT: u16 = 9880;
const PORTS: [u16; 4] = [9876, 9877, 9878, 9879];

/// A namespace in a cluster.
#[derive(Debug)]
pub struct Kubectl {
    context: Context,
    deploy: PathBuf,
    namespace: String,
    images: Images,
    pod: Forward,
    content_manager: Forward,
    /// What each container has said, from its start on, through restarts and beyond its end.
    said: Mutex<BTreeMap<&'static str, LogStream>>,
}

impl Kubectl {
    /// The cluster of this context, with the manifests of the folder `deploy` and these images.
    pub fn new(
        context: Context,
        deploy: &Path,
        registry: &str,
        tag: &str,
        shell_image: &str,
    ) -> io::Result<Self> {
        run_prepared(context.kubectl().args(["version", "--request-timeout=10s"]))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let namespace = format!("sidecar-pod-verify-{}", now.as_millis());
        Ok(Self {
            deploy: deploy.to_owned(),
            images: Images::new(registry, tag, shell_image),
            pod: Forward::new(&context, &namespace, POD, &PORTS),
            content_manager: Forward::new(&context, &namespace, CONTENT_MANAGER, &[CONTENT_PORT]),
            namespace,
            context,
            said: Mutex::default(),
        })
    }

    fn kubectl(&self, args: &[&str]) -> io::Result<String> {
        self.kubectl_in(&self.namespace, args)
    }

    fn kubectl_in(&self, namespace: &str, args: &[&str]) -> io::Result<String> {
        let mut command = self.context.kubectl();
        run_prepared(command.args(["--namespace", namespace]).args(args)).map(|printed| text(&printed))
    }

    fn apply(&self, manifests: &str) -> io::Result<()> {
        feed(self.context.kubectl().args(["apply", "--filename=-"]), manifests).map(drop)
    }

    /// Waits as `kubectl wait` or `kubectl rollout status` do, and stops within seconds where an image cannot be had.
    fn wait(&self, namespace: &str, args: &[&str]) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            let Err(error) = self.kubectl_in(namespace, &[args, &["--timeout=3s"]].concat()) else {
                return Ok(());
            };
            let pods = self.kubectl_in(namespace, &["get", "pods", "--output=json"])?;
            if let Some(missing) = pull::failure(&serde_json::from_str(&pods)?) {
                return Err(io::Error::other(missing));
            }
            if begun.elapsed() > BUDGET || error.kind() == io::ErrorKind::Interrupted {
                return Err(error);
            }
            // A `wait` for something that is not there yet fails at once.
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The Pod as the API server has it: the one that is not on its way out.
    fn describe_pod(&self) -> io::Result<Value> {
        let list = self.kubectl(&["get", "pods", "--selector", POD, "--output=json"])?;
        let list: Value = serde_json::from_str(&list)?;
        let pods = list["items"].as_array().into_iter().flatten();
        let live = pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).cloned().next_back();
        live.ok_or_else(|| io::Error::other("there is no Pod"))
    }

    /// A container's declaration and its status, wherever the Pod keeps them: sidecars are among the init containers.
    fn container(pod: &Value, name: Name) -> io::Result<(Value, Value)> {
        let find = |lists: [&Value; 2]| {
            let mut entries = lists.into_iter().filter_map(Value::as_array).flatten();
            entries.find(|entry| entry["name"] == name.as_str()).cloned()
        };
        let (spec, status) = (&pod["spec"], &pod["status"]);
        let spec = find([&spec["containers"], &spec["initContainers"]]);
        let status = find([&status["containerStatuses"], &status["initContainerStatuses"]]);
        let missing = || io::Error::other(format!("the Pod has no {}", name.as_str()));
        spec.zip(status).ok_or_else(missing)
    }

    /// Kills a container's process from a Pod that sees its node's processes, as the same user and with nothing else.
    fn kill_on_node(&self, node: &str, container_id: &str) -> io::Result<()> {
        let namespace = self.node_namespace();
        let script = format!(
            "for process in /proc/[0-9]*; do if [[ $(<$process/cgroup) == *{container_id}* ]]; then \
             kill -9 ${{process#/proc/}} && killed=yes; fi; done 2>/dev/null; [[ $killed ]]"
        );
        let killer = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "killer", "namespace": namespace},
            "spec": {
                "nodeName": node, "hostPID": true, "restartPolicy": "Never",
                "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
                "tolerations": [{"operator": "Exists"}],
                "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532},
                "containers": [{
                    "name": "killer", "image": self.images.shell(), "command": ["bash", "-c", script],
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                }],
            },
        });
        let allowed = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
        });
        self.apply(&allowed.to_string())?;
        self.apply(&killer.to_string())?;
        self.wait(&namespace, &["wait", "pod/killer", "--for=jsonpath={.status.phase}=Succeeded"])?;
        self.kubectl_in(&namespace, &["delete", "pod/killer", "--now"]).map(drop)
    }

    fn node_namespace(&self) -> String {
        format!("{}-node", self.namespace)
    }
}

impl Engine for Kubectl {
    fn get(&self, path: &str) -> io::Result<Message> {
        self.get_inside(9876, path)
    }

    fn get_inside(&self, port: u16, path: &str) -> io::Result<Message> {
        self.pod.ask(port, |addr| get(addr, port, path))
    }

    fn put_content(&self, path: &str, body: &str) -> io::Result<()> {
        let edit = json!({"data": {path: body}}).to_string();
        self.kubectl(&["patch", "configmap", "site", "--type=merge", "--patch", &edit])?;
        let begun = Instant::now();
        let mut touched: Option<Instant> = None;
        // Put is what the content manager itself serves: from here on the promise counts.
        while begun.elapsed() < REMOUNT {
            // The kubelet looks at a ConfigMap volume about once a minute, and whenever the Pod itself is changed; and
            // it may hear of that before it hears of the edit.
            if touched.is_none_or(|touched| touched.elapsed() > TOUCH_AGAIN) {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
                let touch = format!("verify/edited={now}");
                self.kubectl(&["annotate", "pods", "--selector", CONTENT_MANAGER, "--overwrite", &touch])?;
                touched = Some(Instant::now());
            }
            let served =
                self.content_manager.ask(CONTENT_PORT, |addr| get(addr, CONTENT_PORT, &format!("/{path}")));
            if served.is_ok_and(|answer| answer.body == body.as_bytes()) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(io::Error::other(format!("the content manager does not serve {path} yet")))
    }

    fn kill(&self, name: Name) -> io::Result<()> {
        let pod = self.describe_pod()?;
        let (_, status) = Self::container(&pod, name)?;
        let id = status["containerID"].as_str().unwrap_or_default();
        let id = id.rsplit_once("//").map_or(id, |(_, id)| id);
        self.kill_on_node(pod["spec"]["nodeName"].as_str().unwrap_or_default(), id)
    }

    fn stop_content_manager(&self) -> io::Result<()> {
        self.kubectl(&["scale", "deployment/content-manager", "--replicas=0"])?;
        self.kubectl(&["wait", "pods", "--selector", CONTENT_MANAGER, "--for=delete", TIMEOUT]).map(drop)
    }

    fn start_content_manager(&self) -> io::Result<()> {
        self.kubectl(&["scale", "deployment/content-manager", "--replicas=1"])?;
        self.wait(&self.namespace, &["rollout", "status", "deployment/content-manager"])
    }

    fn shipped(&self) -> io::Result<Vec<Value>> {
        let said = self.said.lock();
        let agent = said.get(Name::LogAgent.as_str()).ok_or(io::ErrorKind::NotFound)?;
        let lines = agent.lines();
        let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(&line.text).ok());
        Ok(lines.filter(|object| object.get("attributes").is_some()).collect())
    }
}

impl Containers for Kubectl {
    fn start(&self) -> io::Result<()> {
        let manifests = Kustomization::over(&self.deploy.join("kubernetes/overlays/verify"));
        let manifests = manifests.namespace(&self.namespace).images(&self.images).render()?;
        self.kubectl(&["create", "namespace", &self.namespace])?;
        let content = self.deploy.join("content");
        let content = format!("--from-file={}", content.display());
        self.kubectl(&["create", "configmap", "site", &content])?;
        self.apply(&manifests)?;
        for deployment in ["deployment/content-manager", "deployment/sidecar-pod"] {
            self.wait(&self.namespace, &["rollout", "status", deployment])?;
        }
        let pod = self.describe_pod()?;
        let pod = pod["metadata"]["name"].as_str().unwrap_or_default();
        for name in Name::ALL.map(Name::as_str) {
            let stream = LogStream::follow(&self.context, &self.namespace, pod, name);
            self.said.lock().insert(name, stream);
        }
        until_it_serves(self, STARTUP)
    }

    fn in_shell(&self, command: &str) -> io::Result<String> {
        let lesson = Kustomization::over(&self.deploy.join("kubernetes/twocontainers.yaml"));
        let lesson = lesson.namespace(&self.namespace).images(&self.images).render()?;
        self.apply(&lesson)?;
        self.wait(&self.namespace, &["wait", "pod/twocontainers", "--for=condition=Ready"])?;
        let mut exec = self.context.kubectl();
        exec.args(["exec", "--namespace", &self.namespace, "twocontainers", "--container=shell", "--"]);
        let printed = run_prepared(exec.args(["bash", "-c", command]))?;
        String::from_utf8(printed).map_err(io::Error::other)
    }

    fn get_through_service(&self, path: &str) -> io::Result<Option<u16>> {
        // From another Pod, as a client in the cluster asks. 000 is what curl writes where there was no answer.
        let ask = format!(
            "curl --silent --output /dev/null --max-time 2 --write-out '%{{http_code}}' \
             'http://sidecar-pod:9876{path}' || true"
        );
        let status = self.in_shell(&ask)?.trim().parse().map_err(io::Error::other)?;
        Ok(Some(status).filter(|status| *status != 0))
    }

    fn confinement(&self, name: Name) -> io::Result<Confinement> {
        // As admitted: the API server has checked it against `restricted`, and the kubelet does what it says.
        let pod = self.describe_pod()?;
        let (spec, status) = Self::container(&pod, name)?;
        let (own, shared) = (&spec["securityContext"], &pod["spec"]["securityContext"]);
        // What the runtime says it did, where it says so (1.33 and later); else what it was told.
        let user = status["user"]["linux"]["uid"].as_u64();
        let user = user.or(own["runAsUser"].as_u64()).or(shared["runAsUser"].as_u64()).unwrap_or_default();
        let dropped = own["capabilities"]["drop"].as_array().is_some_and(|all| all.contains(&json!("ALL")));
        let added = own["capabilities"]["add"].as_array().is_some_and(|added| !added.is_empty());
        Ok(Confinement {
            user: u32::try_from(user).map_err(io::Error::other)?,
            read_only_root: own["readOnlyRootFilesystem"] == true,
            capabilities: if dropped && !added { 0 } else { u64::MAX },
        })
    }

    fn stop(&self) -> io::Result<Vec<Name>> {
        let pod = self.describe_pod()?;
        let pod = pod["metadata"]["name"].as_str().unwrap_or_default();
        self.kubectl(&["delete", "pod", pod, TIMEOUT])?;
        // With the Pod its status is gone too, and that has whole seconds only. But each container logs its drain.
        let said = self.said.lock();
        let mut last_words = Vec::new();
        for name in Name::ALL {
            let stream = said.get(name.as_str()).ok_or(io::ErrorKind::NotFound)?;
            stream.until_its_end()?;
            let last = stream.lines().last().map(|line| line.at).ok_or(io::ErrorKind::NotFound)?;
            last_words.push((last, name));
        }
        Ok(in_order(last_words))
    }

    fn beyond(&self) -> &[(&'static str, &'static str)] {
        &[]
    }

    fn logs(&self) -> String {
        let said = |args: &[&str]| self.kubectl(args).unwrap_or_else(|error| error.to_string());
        let events = said(&["get", "events", "--sort-by=.lastTimestamp"]);
        let pods = said(&["get", "pods", "--output=wide"]);
        let logs = said(&["logs", "--selector", POD, "--all-containers", "--prefix", "--tail=30"]);
        let node = self.node_namespace();
        let on_node = self.kubectl_in(&node, &["get", "events", "--sort-by=.lastTimestamp"]);
        let on_node = on_node.unwrap_or_else(|error| error.to_string());
        format!("{pods}\n{events}\n{node}:\n{on_node}\n{logs}")
    }

    fn remove(&self) -> io::Result<()> {
        self.pod.close();
        self.content_manager.close();
        self.said.lock().clear();
        let namespaces = [&self.namespace, &self.node_namespace()];
        let mut delete = self.context.kubectl();
        delete.args(["delete", "namespace", "--ignore-not-found", TIMEOUT]).args(namespaces);
        clean_up(&mut delete).map(drop)
    }
}

/// `GET` over a forwarded port, as a program inside the Pod would ask: by the name localhost.
fn get(addr: std::net::SocketAddr, port: u16, path: &str) -> io::Result<Message> {
    let mut connection = Connection::try_open(addr)?;
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"))?;
    connection.receive("GET")
}
