"""KubeRay 1.7's resources (ray.io/v1) and those of Kubernetes beside them, as far as our manifests use their fields.

Written by hand after the operator's API types: its own CRD schemas are in no Python package. A field that is not here
is refused, so whoever uses another one in a manifest looks it up first.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from common.settings import Settings

Labels = dict[str, str]


class K8s(Settings, frozen=True, kw_only=True, rename="camel"):
    """Fields by their names there."""


class Metadata(K8s, frozen=True, kw_only=True):
    name: str
    namespace: str | None = None
    labels: Labels = msgspec.field(default_factory=dict)


class TemplateMetadata(K8s, frozen=True, kw_only=True):
    labels: Labels = msgspec.field(default_factory=dict)


class ClaimMetadata(K8s, frozen=True, kw_only=True):
    name: str


class KeyReference(K8s, frozen=True, kw_only=True):
    name: str
    key: str


class ValueFrom(K8s, frozen=True, kw_only=True):
    secret_key_ref: KeyReference


class Credential(K8s, frozen=True, kw_only=True):
    value_from: ValueFrom


class Variable(K8s, frozen=True, kw_only=True):
    name: str
    value: str | None = None
    value_from: ValueFrom | None = None


class ContainerPort(K8s, frozen=True, kw_only=True):
    container_port: int
    name: str

    def __post_init__(self) -> None:
        if len(self.name) > 15:
            raise ValueError(f"name {self.name} has more than 15 characters")


class Mount(K8s, frozen=True, kw_only=True):
    name: str
    mount_path: str
    read_only: bool = False


class Resources(K8s, frozen=True, kw_only=True):
    requests: dict[str, str]
    limits: dict[str, str] = msgspec.field(default_factory=dict)


class Capabilities(K8s, frozen=True, kw_only=True):
    drop: list[Literal["ALL"]]


class ContainerSecurity(K8s, frozen=True, kw_only=True):
    allow_privilege_escalation: Literal[False]
    capabilities: Capabilities


class TcpSocket(K8s, frozen=True, kw_only=True):
    port: str | int


class Probe(K8s, frozen=True, kw_only=True):
    tcp_socket: TcpSocket
    period_seconds: int = 10
    failure_threshold: int = 3


class Container(K8s, frozen=True, kw_only=True):
    name: str
    image: str
    resources: Resources
    security_context: ContainerSecurity
    command: tuple[str, ...] = ()
    env: tuple[Variable, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    volume_mounts: tuple[Mount, ...] = ()


class KeyToPath(K8s, frozen=True, kw_only=True):
    key: str
    path: str


class SecretProjection(K8s, frozen=True, kw_only=True):
    name: str
    items: list[KeyToPath]


class Source(K8s, frozen=True, kw_only=True):
    secret: SecretProjection


class Projected(K8s, frozen=True, kw_only=True):
    sources: list[Source]


class Claim(K8s, frozen=True, kw_only=True):
    claim_name: str


class EmptyDir(K8s, frozen=True, kw_only=True):
    medium: Literal["Memory"]
    size_limit: str


class Volume(K8s, frozen=True, kw_only=True):
    name: str
    persistent_volume_claim: Claim | None = None
    projected: Projected | None = None
    empty_dir: EmptyDir | None = None


class Toleration(K8s, frozen=True, kw_only=True):
    key: str
    operator: Literal["Exists", "Equal"]
    effect: Literal["NoSchedule", "NoExecute", "PreferNoSchedule"]


class PodSecurity(K8s, frozen=True, kw_only=True):
    run_as_non_root: bool
    run_as_user: int
    fs_group: int


class PodSpec(K8s, frozen=True, kw_only=True):
    automount_service_account_token: bool
    containers: list[Container]
    volumes: tuple[Volume, ...] = ()
    termination_grace_period_seconds: int = 30
    node_selector: Labels = msgspec.field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    security_context: PodSecurity | None = None

    def __post_init__(self) -> None:
        known = {volume.name for volume in self.volumes} | {"data"}  # a stateful set's claims are volumes, too
        for container in self.containers:
            for mount in container.volume_mounts:
                if mount.name not in known:
                    raise ValueError(f"volumeMounts: there is no volume {mount.name}")


class PodTemplate(K8s, frozen=True, kw_only=True):
    spec: PodSpec
    metadata: TemplateMetadata = TemplateMetadata()


class HeadGroup(K8s, frozen=True, kw_only=True):
    ray_start_params: dict[str, str]
    template: PodTemplate


class WorkerGroup(K8s, frozen=True, kw_only=True):
    group_name: str
    replicas: int
    min_replicas: int
    max_replicas: int
    ray_start_params: dict[str, str]
    template: PodTemplate
    resources: dict[str, str] = msgspec.field(default_factory=dict)
    idle_timeout_seconds: int | None = None

    def __post_init__(self) -> None:
        if not self.min_replicas <= self.replicas <= self.max_replicas:
            raise ValueError(f"replicas {self.replicas} is not between minReplicas and maxReplicas")


class Authentication(K8s, frozen=True, kw_only=True):
    mode: Literal["token"]
    secret_name: str


class Autoscaler(K8s, frozen=True, kw_only=True):
    version: Literal["v2"]
    idle_timeout_seconds: int
    upscaling_mode: Literal["Default", "Aggressive", "Conservative"]


class GcsFaultTolerance(K8s, frozen=True, kw_only=True):
    redis_address: str
    redis_password: Credential


class ClusterSpec(K8s, frozen=True, kw_only=True):
    ray_version: str
    auth_options: Authentication
    head_group_spec: HeadGroup
    worker_group_specs: list[WorkerGroup]
    enable_in_tree_autoscaling: bool = False
    autoscaler_options: Autoscaler | None = None
    gcs_fault_tolerance_options: GcsFaultTolerance | None = None


class UpgradeStrategy(K8s, frozen=True, kw_only=True):
    type: Literal["NewCluster", "NewClusterWithIncrementalUpgrade", "None"]


class ServiceSpec(K8s, frozen=True, kw_only=True):
    serve_config_v2: str
    ray_cluster_config: ClusterSpec
    upgrade_strategy: UpgradeStrategy
    exclude_head_pod_from_serve_svc: bool


class JobSpec(K8s, frozen=True, kw_only=True):
    entrypoint: str
    submission_mode: Literal["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]
    backoff_limit: int
    shutdown_after_job_finishes: bool
    ttl_seconds_after_finished: int
    ray_cluster_spec: ClusterSpec


class RayCluster(K8s, frozen=True, kw_only=True):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: ClusterSpec


class RayService(K8s, frozen=True, kw_only=True):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayService"]
    metadata: Metadata
    spec: ServiceSpec


class RayJob(K8s, frozen=True, kw_only=True):
    api_version: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec


class Selector(K8s, frozen=True, kw_only=True):
    match_labels: Labels = msgspec.field(default_factory=dict)


class ClaimSpec(K8s, frozen=True, kw_only=True):
    access_modes: list[Literal["ReadWriteMany", "ReadWriteOnce"]]
    resources: dict[Literal["requests"], dict[Literal["storage"], str]]


class ClaimTemplate(K8s, frozen=True, kw_only=True):
    metadata: ClaimMetadata
    spec: ClaimSpec


class StatefulSetSpec(K8s, frozen=True, kw_only=True):
    service_name: str
    replicas: int
    selector: Selector
    template: PodTemplate
    volume_claim_templates: list[ClaimTemplate]


class StatefulSet(K8s, frozen=True, kw_only=True):
    api_version: Literal["apps/v1"]
    kind: Literal["StatefulSet"]
    metadata: Metadata
    spec: StatefulSetSpec


class Namespace(K8s, frozen=True, kw_only=True):
    api_version: Literal["v1"]
    kind: Literal["Namespace"]
    metadata: Metadata


class PersistentVolumeClaim(K8s, frozen=True, kw_only=True):
    api_version: Literal["v1"]
    kind: Literal["PersistentVolumeClaim"]
    metadata: Metadata
    spec: ClaimSpec


class ServicePort(K8s, frozen=True, kw_only=True):
    name: str
    port: int


class KubernetesServiceSpec(K8s, frozen=True, kw_only=True):
    selector: Labels
    ports: list[ServicePort]


class Service(K8s, frozen=True, kw_only=True):
    api_version: Literal["v1"]
    kind: Literal["Service"]
    metadata: Metadata
    spec: KubernetesServiceSpec


class IpBlock(K8s, frozen=True, kw_only=True):
    cidr: str


class Peer(K8s, frozen=True, kw_only=True):
    pod_selector: Selector | None = None
    namespace_selector: Selector | None = None
    ip_block: IpBlock | None = None


class PolicyPort(K8s, frozen=True, kw_only=True):
    port: int
    protocol: Literal["TCP", "UDP"] = "TCP"


class Ingress(K8s, frozen=True, kw_only=True, rename={"from_": "from"}):
    from_: list[Peer]
    ports: tuple[PolicyPort, ...] = ()


class Egress(K8s, frozen=True, kw_only=True):
    to: list[Peer]
    ports: tuple[PolicyPort, ...] = ()


class PolicySpec(K8s, frozen=True, kw_only=True):
    pod_selector: Selector
    policy_types: list[Literal["Ingress", "Egress"]]
    ingress: tuple[Ingress, ...] = ()
    egress: tuple[Egress, ...] = ()


class NetworkPolicy(K8s, frozen=True, kw_only=True):
    api_version: Literal["networking.k8s.io/v1"]
    kind: Literal["NetworkPolicy"]
    metadata: Metadata
    spec: PolicySpec


class MetricsEndpoint(K8s, frozen=True, kw_only=True):
    port: str
    interval: str


class PodMonitorSpec(K8s, frozen=True, kw_only=True):
    selector: Selector
    pod_metrics_endpoints: list[MetricsEndpoint]


class PodMonitor(K8s, frozen=True, kw_only=True):
    api_version: Literal["monitoring.coreos.com/v1"]
    kind: Literal["PodMonitor"]
    metadata: Metadata
    spec: PodMonitorSpec


KINDS: dict[str, type[K8s]] = {
    kind.__name__: kind
    for kind in (
        *(RayCluster, RayJob, RayService),
        *(Namespace, NetworkPolicy, PersistentVolumeClaim, PodMonitor, Service, StatefulSet),
    )
}
