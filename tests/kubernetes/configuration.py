"""How each program of the node is started: its command line and its configuration file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.kubernetes.place import NODE, Place

PAUSE = "localhost/pause:node"
PLUGINS = ("/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin")  # where packages put those of CNI
ETCD = "http://127.0.0.1:2379"  # loopback is the node's own too


def plugins() -> Path | None:
    """The folder of the CNI plugins."""
    return next((Path(folder) for folder in PLUGINS if Path(folder, "ptp").exists()), None)


def write(place: Place) -> None:
    """Write the configuration files, and make the folders that the programs want."""
    for folder in ("logs", "cni", "pods", "volumes", "images", "plugins"):
        (place.runtime / folder).mkdir()
    keys = place.runtime / "keys"
    _json(place.runtime / "kubelet.json", _kubelet(place, keys))
    _json(place.runtime / "proxy.json", _proxy(place, keys))
    _json(place.runtime / "cni" / "pods.conflist", _network(place))
    (place.runtime / "containerd.toml").write_text(_containerd(place))
    (place.runtime / "Corefile").write_text(_names(place, keys))
    (place.runtime / "resolv.conf").write_text(f"nameserver {place.address}\n")


def _json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1))


def _kubelet(place: Place, keys: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": place.address,
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(keys / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(keys / "kubelet.crt"),
        "tlsPrivateKeyFile": str(keys / "kubelet.key"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{place.name}",
        "containerRuntimeEndpoint": f"unix://{place.socket}",
        "clusterDNS": [place.address],
        "clusterDomain": "cluster.local",
        "resolvConf": str(place.runtime / "resolv.conf"),
        "podLogsDir": str(place.runtime / "pods"),
        "volumePluginDir": str(place.runtime / "plugins"),
        # What a machine may be: with control groups of old, with swap, without CAP_SYS_RESOURCE, with a full disk.
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "localStorageCapacityIsolation": False,
        "evictionHard": {"memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        # What it may not write of the machine's settings is no error for it then.
        "featureGates": {"KubeletInUserNamespace": True},
        # It has little to do, and less often.
        "nodeStatusReportFrequency": "5m",
        "volumeStatsAggPeriod": "-1s",
    }


def _proxy(place: Place, keys: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "iptables": {"minSyncPeriod": "100ms"},  # a service finds its pods sooner
        "clientConnection": {"kubeconfig": str(keys / "proxy.conf")},
        "clusterCIDR": place.pods,
        "bindAddress": place.address,
        "metricsBindAddress": "127.0.0.1:10249",
        "healthzBindAddress": "127.0.0.1:10256",
        "hostnameOverride": NODE,
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "oomScoreAdj": 0,
    }


def _network(place: Place) -> dict[str, Any]:
    """Each pod on a link of its own: on a bridge, services would need a kernel module."""
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": place.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": "/run/addresses",
    }
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": addresses}]}


def _containerd(place: Place) -> str:
    return f"""\
version = 2
root = "{place.runtime}/containerd"
state = "/run/containerd"
[grpc]
  address = "{place.socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{place.registries}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins()}"
    conf_dir = "{place.runtime}/cni"
"""


def _names(place: Place, keys: Path) -> str:
    """Names of the cluster; others do not exist, and that is said at once."""
    return f"""\
cluster.local:53 in-addr.arpa:53 {{
  bind {place.address}
  kubernetes {{
    kubeconfig {keys}/admin.conf
    ttl 1
  }}
}}
.:53 {{
  bind {place.address}
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
"""


def commands(place: Place) -> dict[str, list[str]]:
    """Name -> command, in the order of their start."""
    keys, programs = place.runtime / "keys", place.programs
    return {
        "etcd": [
            "etcd",
            "--data-dir=/run/etcd",  # in memory
            f"--listen-client-urls={ETCD}",
            f"--advertise-client-urls={ETCD}",
            "--listen-peer-urls=http://127.0.0.1:2380",
        ],
        "containerd": ["containerd", f"--config={place.runtime}/containerd.toml"],
        "apiserver": [
            f"{programs}/kube-apiserver",
            f"--etcd-servers={ETCD}",
            f"--bind-address={place.address}",
            f"--advertise-address={place.address}",
            f"--service-cluster-ip-range={place.services}",
            f"--client-ca-file={keys}/ca.crt",
            f"--tls-cert-file={keys}/apiserver.crt",
            f"--tls-private-key-file={keys}/apiserver.key",
            f"--service-account-key-file={keys}/accounts.pub",
            f"--service-account-signing-key-file={keys}/accounts.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--kubelet-client-certificate={keys}/admin.crt",
            f"--kubelet-client-key={keys}/admin.key",
            "--kubelet-preferred-address-types=InternalIP",
            # For what OpenShift does to pods.
            "--feature-gates=MutatingAdmissionPolicy=true",
            "--runtime-config=admissionregistration.k8s.io/v1beta1=true",
        ],
        "controller-manager": [
            f"{programs}/kube-controller-manager",
            f"--kubeconfig={keys}/controller-manager.conf",
            f"--service-account-private-key-file={keys}/accounts.key",
            f"--root-ca-file={keys}/ca.crt",
            "--use-service-account-credentials",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
        ],
        "scheduler": [
            f"{programs}/kube-scheduler",
            f"--kubeconfig={keys}/scheduler.conf",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            # A pod that was looked at while its claim was being bound has been seen to wait for the scheduler's next
            # look at what it could not place, which is after five minutes if nothing is said.
            "--pod-max-in-unschedulable-pods-duration=10s",
        ],
        "coredns": [f"{programs}/coredns", f"-conf={place.runtime}/Corefile"],
        "proxy": [f"{programs}/kube-proxy", f"--config={place.runtime}/proxy.json"],
        "kubelet": [
            f"{programs}/kubelet",
            f"--config={place.runtime}/kubelet.json",
            f"--kubeconfig={keys}/kubelet.conf",
            f"--hostname-override={NODE}",
            f"--node-ip={place.address}",
            f"--root-dir={place.runtime}/kubelet",
        ],
        "volumes": [
            sys.executable,
            "-m",
            "tests.kubernetes.volumes",
            *(str(word) for word in (place.number, place.runtime, place.programs)),
        ],
    }
