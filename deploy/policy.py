"""What schemas miss: the rules of our own that every rendered manifest keeps.

    python deploy/policy.py [--self-test] RENDERED.yaml...

Each rule is a function that yields what is wrong. --self-test breaks every rule once, and fails where that goes unnoticed.
"""

import copy
import pathlib
import sys

import yaml

USER = 65532
# The contract's ports, by container. The content manager is a web-server with an address of its own.
PORTS = {
    "web-server": {9876, 9877},
    "sise": {9876},
    "file-puller": {9878},
    "log-agent": {9879},
    "content-manager": {9880, 9877},
}
# Who may write to which volume of the Pod; every other container mounts it read-only.
WRITERS = {
    "content": {"file-puller", "first-release"},
    "logs": {"web-server"},
    "state": {"log-agent"},
    "site": set(),
    "config": set(),
    # The Pods of deploy/patterns.
    "ambassador": set(),
    "adapter": set(),
    "tmp": {"nginx"},
}
# Not ours, and without an admin port.
FOREIGN = {"otel-collector", "shell", "haproxy", "nginx", "exporter"}


def pod_of(manifest):
    if manifest["kind"] == "Pod":
        return manifest["spec"]
    return manifest.get("spec", {}).get("template", {}).get("spec")


def containers_of(pod):
    return pod.get("initContainers", []) + pod["containers"]


def restricted(pod):
    """Pod Security `restricted`, and a read-only root, which it does not ask for."""
    shared = pod.get("securityContext", {})
    if shared.get("runAsNonRoot") is not True or shared.get("runAsUser") != USER or shared.get("runAsGroup") != USER:
        yield f"the Pod does not run as {USER}"
    if shared.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "the Pod has no seccomp profile"
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield f"the Pod has {field}"
    for container in containers_of(pod):
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{container['name']} may escalate privileges"
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{container['name']} keeps capabilities"
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{container['name']} has a writable root"
        if set(own) & {"privileged", "runAsUser", "runAsNonRoot", "seccompProfile"}:
            yield f"{container['name']} departs from the Pod's security context"


def keeps_to_itself(pod):
    """No credentials for the API server, and no variables that would be taken for our flags."""
    if pod.get("automountServiceAccountToken") is not False:
        yield "the Pod is given a token"
    if pod.get("enableServiceLinks") is not False:
        yield "the Pod is given variables of Services"


def images_are_pinned(pod):
    for container in containers_of(pod):
        tag = container["image"].rpartition("/")[2].partition(":")[2]
        if tag in ("", "latest"):
            yield f"{container['name']} has no pinned image: {container['image']}"
        if container["name"] == "otel-collector" and "@sha256:" not in container["image"]:
            yield f"{container['name']} is not ours, and its image is not pinned by digest: {container['image']}"


def resources_are_bounded(pod):
    """A limit on memory, which can take the node down, but none on CPU, which would only slow down the container itself."""
    for container in containers_of(pod):
        resources = container.get("resources", {})
        if set(resources.get("requests", {})) != {"cpu", "memory"}:
            yield f"{container['name']} does not request CPU and memory"
        if set(resources.get("limits", {})) != {"memory"}:
            yield f"{container['name']} does not limit memory, and memory alone"
    for volume in pod.get("volumes", []):
        if "emptyDir" in volume and not (volume["emptyDir"] or {}).get("sizeLimit"):
            yield f"volume {volume['name']} has no size limit"


MIB = 1024 * 1024


def size(text):
    """Bytes of `16MiB`, as our flags have it, or of `64Mi`, as Kubernetes does."""
    number = text.rstrip("MiB")
    if not number.isdigit() or text[len(number):] not in ("Mi", "MiB"):
        raise ValueError(f"{text} is not in MiB")
    return int(number) * MIB


def web_server_has_room(pod):
    """README.md, Memory: what the program needs; twice its cache, and 400 connections that are answered at once; or, where these give
    way, the index of two releases as large as the puller accepts them."""
    for container in containers_of(pod):
        args = container.get("args", [])
        limit = container.get("resources", {}).get("limits", {}).get("memory")
        if container["name"] not in ("web-server", "content-manager") or "--cache-size" not in args or not limit:
            continue
        serving = 2 * size(args[args.index("--cache-size") + 1]) + 400 * 36 * 1024
        puller = find(pod, "file-puller")["args"]
        # An index takes about as much as the manifest of its release.
        manifest = size(puller[puller.index("--max-manifest-size") + 1])
        if "--manifest" in args:
            # Of a mirror: the manifest twice, and the index.
            serving += 3 * manifest
        needed = 10 * MIB + max(serving, 2 * manifest) + size(limit) * 5 // 64
        if size(limit) < needed:
            yield f"{container['name']} may have {limit}, and its flags need {needed // MIB}Mi (deploy/README.md, Memory)"


def file_puller_has_room(pod):
    """README.md, Memory: the largest manifest that it accepts fits into its memory, and its releases into the volume for content."""
    volumes = {volume["name"]: volume.get("emptyDir") or {} for volume in pod.get("volumes", [])}
    for container in containers_of(pod):
        args = container.get("args", [])
        limit = container.get("resources", {}).get("limits", {}).get("memory")
        if not {"--max-manifest-size", "--max-volume-size", "--max-size"} <= set(args) or not limit:
            if container["name"] in WRITERS["content"]:
                yield f"{container['name']} has no bounds on its manifest and volume"
            continue
        manifest, releases, release = (
            size(args[args.index(flag) + 1]) for flag in ("--max-manifest-size", "--max-volume-size", "--max-size")
        )
        needed = 14 * MIB + manifest * 5 // 2
        if size(limit) < needed:
            yield f"{container['name']} may have {limit}, and its flags need {needed // MIB}Mi (deploy/README.md, Memory)"
        if releases < 2 * release:
            yield f"{container['name']} has no room for the next release beside the current one"
        room = volumes["content"].get("sizeLimit")
        if room and size(room) < releases + 64 * MIB:
            yield f"{container['name']} may fill more than the volume for content allows"


def only_the_writer_writes(pod):
    for container in containers_of(pod):
        for mount in container.get("volumeMounts", []):
            writes = mount.get("readOnly") is not True
            if writes and container["name"] not in WRITERS[mount["name"]]:
                yield f"{container['name']} may write to {mount['name']}"


def ports_are_the_contracts(pod):
    for container in containers_of(pod):
        ports = {port["containerPort"] for port in container.get("ports", [])}
        if container["name"] in PORTS and ports != PORTS[container["name"]]:
            yield f"{container['name']} declares the ports {sorted(ports)}"


def probes_ask_the_right_thing(pod):
    """Liveness asks /livez. Readiness is the server's alone: no sidecar takes the Pod out of its Service."""
    for container in containers_of(pod):
        name = container["name"]
        if name in FOREIGN:
            continue
        if "livenessProbe" in container and container["livenessProbe"]["httpGet"]["path"] != "/livez":
            yield f"{name}'s liveness asks something else than /livez"
        if "readinessProbe" in container and name not in ("web-server", "content-manager"):
            yield f"{name} has a readiness probe"


def sidecars_are_in_order(pod):
    """Native: log-agent, then file-puller, whose startup is the first release. Classic: a one-shot pull first."""
    names = [container["name"] for container in pod.get("initContainers", [])]
    plain = [container["name"] for container in pod["containers"]]
    if "web-server" in plain:
        order = ["log-agent", "file-puller"]
    elif "content-manager" in plain and names:
        # A mirror, which writes no log.
        order = ["file-puller"]
    else:
        return
    if names == ["first-release"]:
        if "--once" not in pod["initContainers"][0]["args"]:
            yield "first-release does not end"
        return
    if names != order:
        yield f"the sidecars are started in the order {names}"
    for container in pod.get("initContainers", []):
        if container.get("restartPolicy") != "Always":
            yield f"{container['name']} is no sidecar: the Pod waits for its end"
    startup = [container.get("startupProbe", {}) for container in pod.get("initContainers", []) if container["name"] == "file-puller"]
    if not startup or startup[0].get("httpGet", {}).get("path") != "/readyz":
        yield "web-server does not wait for the first release"
    elif startup[0].get("periodSeconds", 10) * startup[0].get("failureThreshold", 3) != 300:
        yield "the budget for the first release is not five minutes"


def grace_covers_the_drains(pod):
    """Native sidecars stop one after the other, and share one grace period; plain containers stop together."""
    sidecars = [container for container in containers_of(pod) if container.get("restartPolicy") == "Always"]
    if not sidecars and "web-server" not in [container["name"] for container in pod["containers"]]:
        return
    drains = []
    for container in sidecars + pod["containers"]:
        args = container.get("args", [])
        drain = int(args[args.index("--shutdown-timeout") + 1].removesuffix("s")) if "--shutdown-timeout" in args else 10
        sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        drains.append(drain + sleep)
    needed = sum(drains) if sidecars else max(drains)
    if pod.get("terminationGracePeriodSeconds", 30) < needed:
        yield f"the drains take up to {needed} s, and the grace period is {pod.get('terminationGracePeriodSeconds', 30)} s"


RULES = [
    restricted,
    keeps_to_itself,
    images_are_pinned,
    resources_are_bounded,
    web_server_has_room,
    file_puller_has_room,
    only_the_writer_writes,
    ports_are_the_contracts,
    probes_ask_the_right_thing,
    sidecars_are_in_order,
    grace_covers_the_drains,
]


def namespaces_enforce(manifest):
    enforced = manifest["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce")
    if manifest["kind"] == "Namespace" and enforced != "restricted":
        yield "the namespace does not enforce Pod Security `restricted`"


# podman publishes every port that is declared, so its overlay declares only those that are meant to be.
EXEMPT = {"podman": {ports_are_the_contracts}}


def faults(manifest, rendering=""):
    yield from namespaces_enforce(manifest)
    pod = pod_of(manifest)
    if pod:
        for rule in RULES:
            if rule not in EXEMPT.get(rendering, set()):
                yield from rule(pod)


def find(pod, name):
    return next(container for container in containers_of(pod) if container["name"] == name)


def accept_larger_manifests(pod):
    """file-puller has the memory for that, and web-server has none for the index."""
    puller = find(pod, "file-puller")
    puller["args"][puller["args"].index("--max-manifest-size") + 1] = "40MiB"
    puller["resources"]["limits"].update(memory="128Mi")


# One way to break each thing that a rule looks at, on the Pod of base-native.
BREAKS = {
    "root user": lambda pod: pod["securityContext"].update(runAsUser=0),
    "no seccomp": lambda pod: pod["securityContext"].pop("seccompProfile"),
    "host network": lambda pod: pod.update(hostNetwork=True),
    "escalation": lambda pod: find(pod, "log-agent")["securityContext"].pop("allowPrivilegeEscalation"),
    "capability": lambda pod: find(pod, "log-agent")["securityContext"]["capabilities"].update(add=["NET_RAW"]),
    "writable root": lambda pod: find(pod, "web-server")["securityContext"].pop("readOnlyRootFilesystem"),
    "own user": lambda pod: find(pod, "web-server")["securityContext"].update(runAsUser=0),
    "token": lambda pod: pod.pop("automountServiceAccountToken"),
    "service links": lambda pod: pod.pop("enableServiceLinks"),
    "latest": lambda pod: find(pod, "web-server").update(image="host:5000/web-server"),
    "no request": lambda pod: find(pod, "web-server")["resources"].pop("requests"),
    "no limit": lambda pod: find(pod, "web-server")["resources"].pop("limits"),
    "CPU limit": lambda pod: find(pod, "web-server")["resources"]["limits"].update(cpu="1"),
    "no room for the cache": lambda pod: find(pod, "web-server")["resources"]["limits"].update(memory="32Mi"),
    "no room for the index": accept_larger_manifests,
    "no room for a mirror's manifest": lambda pod: find(pod, "web-server")["args"].append("--manifest"),
    "no room for the manifest": lambda pod: find(pod, "file-puller")["resources"]["limits"].update(memory="48Mi"),
    "no room for releases": lambda pod: pod["volumes"][0]["emptyDir"].update(sizeLimit="448Mi"),
    "no bounds on content": lambda pod: find(pod, "file-puller")["args"].remove("--max-volume-size"),
    "endless volume": lambda pod: pod["volumes"][0].update(emptyDir={}),
    "server writes content": lambda pod: find(pod, "web-server")["volumeMounts"][0].pop("readOnly"),
    "agent writes logs": lambda pod: find(pod, "log-agent")["volumeMounts"][0].pop("readOnly"),
    "another port": lambda pod: find(pod, "file-puller")["ports"][0].update(containerPort=80),
    "liveness on readyz": lambda pod: find(pod, "file-puller")["livenessProbe"]["httpGet"].update(path="/readyz"),
    "ready sidecar": lambda pod: find(pod, "log-agent").update(readinessProbe={}),
    "order": lambda pod: pod["initContainers"].reverse(),
    "plain init container": lambda pod: find(pod, "log-agent").pop("restartPolicy"),
    "no startup probe": lambda pod: find(pod, "file-puller").pop("startupProbe"),
    "short budget": lambda pod: find(pod, "file-puller")["startupProbe"].update(failureThreshold=3),
    "short grace": lambda pod: pod.update(terminationGracePeriodSeconds=30),
}


def self_test(manifest):
    """Names every break that goes unnoticed."""
    for name, break_it in BREAKS.items():
        broken = copy.deepcopy(manifest)
        break_it(pod_of(broken))
        if not list(faults(broken)):
            yield name
    if not list(namespaces_enforce({"kind": "Namespace", "metadata": {}})):
        yield "lax namespace"


def main(arguments):
    tested = "--self-test" not in arguments
    failed = 0
    passed = 0
    for path in (argument for argument in arguments if argument != "--self-test"):
        rendering = pathlib.Path(path).stem
        for manifest in yaml.safe_load_all(pathlib.Path(path).read_text()):
            name = f"{rendering}: {manifest['kind']}/{manifest['metadata']['name']}"
            found = list(faults(manifest, rendering))
            for fault in found:
                print(f"{name}: {fault}", file=sys.stderr)
            failed += bool(found)
            passed += not found
            if not tested and path.endswith("base-native.yaml") and manifest["metadata"]["name"] == "sidecar-pod" and pod_of(manifest):
                unnoticed = list(self_test(manifest))
                if unnoticed:
                    print(f"no rule notices: {', '.join(unnoticed)}", file=sys.stderr)
                    return 1
                print(f"policy: each of {len(BREAKS) + 1} breaks is noticed")
                tested = True
    if not tested:
        print("policy: --self-test needs base-native.yaml", file=sys.stderr)
        return 1
    print(f"policy: {passed} manifests passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
