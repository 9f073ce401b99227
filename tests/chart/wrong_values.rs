//! A wrong value is refused, with its name.

use futures::{StreamExt, stream};
use tenantry_dev::helm::{Helm, chart};

/// A wrong value, as after `--set`, and what the error must contain.
const WRONG: [(&str, &str); 64] = [
    ("replica=2", "'replica' not allowed"),
    ("replicas=0", "/replicas"),
    ("replicas=two", "/replicas"),
    ("replicas=11", "/replicas"),
    ("image=tenantry", "/image"),
    ("image.repository=", "image.repository"),
    ("image.repository=Not An Image", "/image/repository"),
    ("image.tag=a b", "/image/tag"),
    ("image.digest=sha256:1", "/image/digest"),
    ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
    ("image.pullSecret=x", "'pullSecret' not allowed"),
    ("registry.url=postgresql://x", "'url' not allowed"),
    ("registry.urlSecret=x", "/registry/urlSecret"),
    ("registry.urlSecret.name=", "/registry/urlSecret/name"),
    ("registry.urlSecret.key=a/b", "/registry/urlSecret/key"),
    ("registry.caSecret.name=UPPER", "/registry/caSecret/name"),
    ("registry.connections=1", "/registry/connections"),
    ("watch.namespaces=customers", "/watch/namespaces"),
    ("watch.namespaces={}", "/watch/namespaces"),
    ("watch.namespaces={a,a}", "/watch/namespaces"),
    ("watch.namespaces={A}", "/watch/namespaces/0"),
    ("watch.clusterWide=yes please", "/watch/clusterWide"),
    ("watch.allNamespaces=true", "'allNamespaces' not allowed"),
    ("moduleSchemas.billing=app", "'billing' not allowed"),
    ("moduleSchemas.core=App", "/moduleSchemas/core"),
    ("moduleSchemas.identity=pg_users", "/moduleSchemas/identity"),
    ("access.roles=some", "/access/roles"),
    ("access.aggregateTo.operator=true", "'operator' not allowed"),
    ("lease.durationSeconds=1", "/lease/durationSeconds"),
    ("lease.durationSeconds=10", "lease.durationSeconds must be longer than lease.renewDeadlineSeconds"),
    ("lease.retryPeriodSeconds=6", "at least twice lease.retryPeriodSeconds"),
    ("lease.name=", "/lease/name"),
    ("concurrency=0", "/concurrency"),
    ("concurrency=16.5", "/concurrency"),
    ("maxConnectionsPerServer=3", "/maxConnectionsPerServer"),
    ("intervals.usageSeconds=0", "/intervals/usageSeconds"),
    ("intervals.driftSeconds=1m", "/intervals/driftSeconds"),
    ("intervals.lockWatchSeconds=1", "/intervals/lockWatchSeconds"),
    ("massDeletionBreaker=false", "/massDeletionBreaker"),
    ("massDeletionBreaker.enabled=off", "/massDeletionBreaker/enabled"),
    ("massDeletionBreaker.percent=101", "/massDeletionBreaker/percent"),
    ("retention.workflowDays=-1", "/retention/workflowDays"),
    ("retention.days=1", "'days' not allowed"),
    ("log.format=xml", "/log/format"),
    ("log.level=", "/log/level"),
    ("http.port=80", "/http/port"),
    ("crds.instal=true", "'instal' not allowed"),
    ("crds.keep=1", "/crds/keep"),
    ("admission.recordUsers=maybe", "/admission/recordUsers"),
    ("plans.install=free", "/plans/install"),
    ("networkPolicy.metricsFrom=monitoring", "/networkPolicy/metricsFrom"),
    ("networkPolicy.metricsFrom[0].namespace=monitoring", "'namespace' not allowed"),
    ("metrics.serviceMonitor=true", "/metrics/serviceMonitor"),
    ("metrics.prometheusRule.enabled=1", "/metrics/prometheusRule/enabled"),
    ("metrics.prometheusRule.runbookUrl=", "/metrics/prometheusRule/runbookUrl"),
    ("metrics.dashboard=true", "/metrics/dashboard"),
    ("traces.headersSecret=x", "/traces/headersSecret"),
    ("traces.headersSecret.name=UPPER", "/traces/headersSecret/name"),
    (
        "traces.headersSecret.name=a,extraEnv.OTEL_EXPORTER_OTLP_HEADERS=b",
        "traces.headersSecret.name and extraEnv.OTEL_EXPORTER_OTLP_HEADERS are the same variable",
    ),
    ("podDisruptionBudget.maxUnavailable=half", "/podDisruptionBudget/maxUnavailable"),
    ("resources.requests.cpu=much", "/resources/requests/cpu"),
    ("tolerations[0].effect=NoWay", "/tolerations/0/effect"),
    ("podLabels.team=a b", "/podLabels/team"),
    ("extraEnv.TENANTRY_POD_UID=x", "TENANTRY_POD_UID"),
];

#[tokio::test]
async fn wrong_values_are_named() {
    let helm = Helm::new(None).await.unwrap();
    let chart = chart().display().to_string();
    let try_one = async |(value, named): (&str, &str)| -> Option<String> {
        let template = ["template", "tenantry", &chart, "--set", "image.repository=tenantry", "--set", value];
        match helm.run(&template).await {
            Ok(_) => Some(format!("{value} is accepted")),
            Err(error) => {
                let error = error.to_string();
                // What Helm printed, without the command.
                let (_, answer) = error.split_once("(exit status").unwrap();
                (!answer.contains(named)).then(|| format!("{value}: {named:?} is not in: {answer}"))
            }
        }
    };
    let wrong: Vec<Option<String>> = stream::iter(WRONG).map(try_one).buffered(4).collect().await;
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
