//! What the commands of the pages need: the situation that their text describes, and what they then show.

/// The pages whose commands are run, in this order.
pub const PAGES: [&str; 19] = [
    "../README.md",
    "conditions.md",
    "first-login.md",
    "health.md",
    "plans.md",
    "lifecycle.md",
    "accounts.md",
    "renaming.md",
    "credentials.md",
    "audit.md",
    "support-access.md",
    "access.md",
    "webhook.md",
    "server-setup.md",
    "offboarding.md",
    "upgrades.md",
    "troubleshooting.md",
    "runbooks.md",
    "uninstall.md",
];

/// What is done before a block is run, and after it. A block of a page without a situation is run as it is.
pub struct Situation {
    pub page: &'static str,
    /// How the block begins.
    pub block: &'static str,
    /// Commands that bring the situation about, and those that end it.
    pub before: &'static str,
    pub after: &'static str,
    /// What the block shows.
    pub shows: &'static [&'static str],
}

const NONE: Situation = Situation { page: "", block: "", before: "", after: "", shows: &[] };

/// Ready again, as the tenant of `acme.yaml`.
const COMES_BACK: &str = "kubectl apply -f acme.yaml
    kubectl wait -n customers --for=condition=Ready --timeout=60s ten/acme";

pub const SITUATIONS: &[Situation] = &[
    Situation {
        page: "../README.md",
        block: "kubectl apply -f examples/quickstart/acme.yaml",
        shows: &["ReadWrite", "postgresql://tenant_acme_app:", r#""credential":"ResetToken""#],
        ..NONE
    },
    Situation {
        page: "first-login.md",
        block: "kubectl get secret",
        shows: &[r#"[{"credential":"ResetToken","email":"owner@acme.example","expiresAt":"20"#],
        ..NONE
    },
    Situation { page: "health.md", block: "curl", shows: &[r#""status": "ready""#], ..NONE },
    Situation {
        page: "plans.md",
        block: "kubectl get tenantplans",
        // An active tenant, so that the gates of the plan do not block it.
        before: r#"kubectl apply -f examples/quickstart/initech.yaml -f page/plan.yaml
            kubectl wait -n customers --for=condition=Ready --timeout=60s ten/initech
            kubectl patch ten -n customers initech --type merge -p \
              '{"spec":{"plan":"gold","limits":{"storageBytes":107374182400}}}'"#,
        shows: &["gold"],
        ..NONE
    },
    Situation {
        page: "plans.md",
        block: "kubectl get ten -A --field-selector",
        shows: &["initech"],
        ..NONE
    },
    Situation {
        page: "lifecycle.md",
        block: "kubectl patch ten -n customers acme",
        after: "kubectl wait -n customers --for=jsonpath='{.status.access}'=ReadWrite --timeout=60s ten/acme",
        ..NONE
    },
    Situation {
        page: "lifecycle.md",
        block: "kubectl get hold",
        before: "kubectl apply -f page/hold.yaml
            kubectl wait -n customers --for=condition=InForce --timeout=60s hold/billing",
        after: "kubectl wait -n customers --for=jsonpath='{.status.access}'=ReadWrite --timeout=60s ten/acme",
        shows: &["IN FORCE", "True"],
    },
    Situation {
        page: "lifecycle.md",
        block: "kubectl get events -n default",
        // One more than the breaker lets pass; the token of the page is another one each time.
        before: r#"for number in $(seq 11); do
              sed "s/initech/many-$number/" examples/quickstart/initech.yaml; echo ---
            done | kubectl apply -f -
            kubectl wait -n customers --for=condition=Ready --timeout=60s ten --all
            kubectl get ten -n customers -o name | grep many- | xargs kubectl delete -n customers --wait=false
            until_true 'kubectl get events -n default -o json > events.json
              grep -o "breaker-acknowledged=[0-9a-f]*" events.json | head -1 | cut -d= -f2 > token; test -s token'"#,
        after: r#"until_true 'curl -s "$TENANTRY_HTTP/metrics" | grep "^tenantry_mass_deletion_breaker_open 0"'
            until_true '! kubectl get ten -n customers -o name | grep many-'"#,
        shows: &["MassDeletion", "breaker-acknowledged="],
    },
    Situation {
        page: "renaming.md",
        block: "kubectl patch ten -n customers acme",
        // The other pages have its name.
        after: r#"kubectl patch ten -n customers acme --type merge -p '{"spec":{"slug":"acme","stateReason":"it stays"}}'
            kubectl wait -n customers --for=condition=Ready --timeout=60s ten/acme"#,
        ..NONE
    },
    Situation {
        page: "credentials.md",
        block: "kubectl --namespace customers annotate",
        after: "kubectl wait -n customers --for=jsonpath='{.status.credentials.login}'=tenant_acme_b --timeout=60s ten/acme",
        ..NONE
    },
    Situation {
        page: "credentials.md",
        block: "kubectl --namespace customers delete secret",
        after: "kubectl wait -n customers --for=create --timeout=60s secret/acme-db
            kubectl wait -n customers --for=condition=Ready --timeout=60s ten/acme",
        ..NONE
    },
    Situation {
        page: "access.md",
        block: "kubectl create clusterrolebinding",
        after: "kubectl delete clusterrolebinding platform-team support-team support-leads
            kubectl delete rolebinding -n customers billing",
        shows: &["yes"],
        ..NONE
    },
    Situation {
        page: "accounts.md",
        block: "kubectl create namespace acme",
        shows: &["acme"],
        ..NONE
    },
    Situation {
        page: "accounts.md",
        block: "kubectl --namespace acme patch tenantaccount",
        // What waits is shown by the next block.
        after: r#"kubectl wait -n customers --for=jsonpath='{.status.conditions[?(@.type=="AccountShown")].reason}'=AccountRequest \
              --timeout=60s ten/acme"#,
        shows: &["professional Pending"],
        ..NONE
    },
    Situation {
        page: "accounts.md",
        block: "kubectl get tenants --all-namespaces",
        shows: &["customers/acme: ", "2026-11"],
        // The other pages have its plan.
        after: r#"kubectl --namespace acme patch tenantaccount acme --type merge --patch '{"spec": {"displayName": null,
              "settings": null, "planRequest": null, "exportRequest": null}}'
            kubectl wait -n customers --for=jsonpath='{.status.plan}'=starter --timeout=60s ten/acme
            kubectl wait -n customers --for=condition=Ready --timeout=60s ten/acme"#,
        ..NONE
    },
    Situation { page: "webhook.md", block: "kubectl -n tenantry-system logs", shows: &["serving the admission webhook"], ..NONE },
    Situation {
        page: "support-access.md",
        block: "kubectl apply -f ticket-4711.yaml",
        // Its reader writes the own name.
        before: r#"kubectl auth whoami -o jsonpath='{.status.userInfo.username}' > whoami
            sed "s/ada@example.com/$(cat whoami)/" page/ticket.yaml > ticket-4711.yaml"#,
        // The Role of the block before.
        after: "kubectl --as=ada@example.com get secret -n customers ticket-4711-support
            kubectl delete supp -n customers ticket-4711",
        shows: &["postgresql://tenant_acme_support_"],
    },
    Situation {
        page: "support-access.md",
        block: "kubectl --namespace customers patch supp",
        before: r#"sed "s/approval: NotRequired/approval: Required/" page/ticket.yaml |
              kubectl --as=ada@example.com --as-group=system:masters apply -f -
            kubectl wait -n customers --for=jsonpath='{.status.state}'=WaitingForApproval --timeout=60s supp/ticket-4711"#,
        after: "kubectl wait -n customers --for=condition=Granted --timeout=60s supp/ticket-4711
            kubectl delete supp -n customers ticket-4711",
        ..NONE
    },
    Situation {
        page: "server-setup.md",
        block: "export TENANTRY_ADMIN_URL",
        after: "kubectl wait --for=condition=Ready --timeout=60s dbs/default",
        shows: &["done"],
        ..NONE
    },
    Situation {
        page: "server-setup.md",
        block: "tenantry server-setup --print-sql",
        after: "kubectl wait --for=condition=Ready --timeout=60s dbs/default",
        shows: &["GRANT", "tenantry_admin"],
        ..NONE
    },
    Situation {
        page: "server-setup.md",
        block: "kubectl annotate dbs default",
        before: r#"psql "$TENANTRY_ADMIN_URL" -Atc 'SELECT system_identifier FROM pg_control_system()' > identifier"#,
        after: "kubectl wait --for=condition=Ready --timeout=60s dbs/default",
        ..NONE
    },
    Situation {
        page: "offboarding.md",
        block: "kubectl delete ten -n customers acme",
        // The tenant of the examples has no grace.
        before: "sed '/No grace period/,$d' examples/quickstart/acme.yaml > acme.yaml; kubectl apply -f acme.yaml",
        after: COMES_BACK,
        ..NONE
    },
    Situation {
        page: "offboarding.md",
        block: "kubectl patch ten -n customers acme --type merge -p '{\"spec\":{\"offboarding\":{\"trigger\"",
        after: COMES_BACK,
        ..NONE
    },
    Situation {
        page: "offboarding.md",
        block: "kubectl patch ten -n customers acme --type merge -p \\\n  '{\"spec\":{\"state\":\"Deprovisioned\"",
        shows: &["Deprovisioning 20"],
        ..NONE
    },
    Situation {
        page: "offboarding.md",
        block: "kubectl patch ten -n customers acme --type merge -p '{\"spec\":{\"offboarding\":{\"gracePeriodSeconds\"",
        after: "kubectl wait -n customers --for=condition=Deprovisioned --timeout=60s ten/acme
            kubectl delete ten -n customers acme
            kubectl apply -f acme.yaml
            kubectl wait -n customers --for=condition=Ready --timeout=60s ten/acme",
        ..NONE
    },
    Situation {
        page: "offboarding.md",
        block: "kubectl wait -n customers --for=condition=InForce hold/legal",
        before: "kubectl apply -f page/legal.yaml",
        shows: &["PRESERVE", "true"],
        ..NONE
    },
    Situation {
        page: "offboarding.md",
        block: "kubectl apply -f acme.yaml",
        before: "kubectl delete ten -n customers acme",
        ..NONE
    },
    Situation {
        page: "offboarding.md",
        block: "kubectl patch ten -n customers acme --type merge -p '{\"spec\":{\"state\":\"Active\"",
        before: r#"kubectl patch ten -n customers acme --type merge -p \
              '{"spec":{"state":"Deprovisioned","stateReason":"contract ended"}}'
            kubectl wait -n customers --for=jsonpath='{.status.access}'=Blocked --timeout=60s ten/acme"#,
        ..NONE
    },
    Situation {
        page: "upgrades.md",
        block: "kubectl get hold -A",
        // The legal hold of the page about offboarding.
        shows: &["customers/acme"],
        after: "kubectl delete hold -n customers legal",
        ..NONE
    },
    Situation {
        page: "troubleshooting.md",
        block: "kubectl annotate ten -n customers acme tenantry.dev/adopt-row",
        // A registry of before the tenant.
        before: r#"psql "$REGISTRY_ADMIN_URL" -c "SET session_replication_role = replica" \
              -c "DELETE FROM tenants WHERE slug = 'acme'"
            kubectl annotate ten -n customers acme --overwrite tenantry.dev/reconcile-requested-at="$(date)"
            kubectl wait -n customers --timeout=60s ten/acme \
              --for=jsonpath='{.status.conditions[?(@.type=="Ready")].reason}'=RegistryRowMissing"#,
        after: "kubectl wait -n customers --for=condition=Ready --timeout=60s ten/acme",
        ..NONE
    },
    Situation {
        page: "troubleshooting.md",
        block: "kubectl get lease",
        shows: &["tenantry_leader 1"],
        ..NONE
    },
    Situation {
        page: "runbooks.md",
        block: "POD=$(kubectl",
        shows: &[r#""role": "leader""#],
        ..NONE
    },
    Situation {
        page: "runbooks.md",
        block: "kubectl -n tenantry-system get deployment,pods",
        shows: &["deployment.apps/tenantry", "pod/tenantry-"],
        ..NONE
    },
    Situation {
        page: "runbooks.md",
        block: "kubectl -n tenantry-system get lease\n",
        shows: &["--lease-name=tenantry", "--operator-namespace=tenantry-system"],
        ..NONE
    },
    Situation {
        page: "runbooks.md",
        block: "kubectl get tenants -A -o json | jq -r '.items[] | select(.status.state == \"Failed\")",
        before: r#"kubectl create secret generic stuck-db -n customers --from-literal=mine=yes
            sed 's/initech/stuck/' examples/quickstart/initech.yaml | kubectl apply -f -
            kubectl wait -n customers --for=jsonpath='{.status.state}'=Failed --timeout=60s ten/stuck"#,
        shows: &["customers\tstuck\tSecretConflict"],
        ..NONE
    },
    Situation {
        page: "runbooks.md",
        block: "kubectl get tenants -A | grep Provisioning",
        before: "sed 's/initech/later/; s/plan: free/plan: later/' examples/quickstart/initech.yaml | kubectl apply -f -
            kubectl wait -n customers --for=jsonpath='{.status.state}'=Provisioning --timeout=60s ten/later",
        shows: &["PlanNotFound"],
        ..NONE
    },
    Situation {
        page: "runbooks.md",
        block: "kubectl -n tenantry-system logs \"$POD\" --since=20m | grep '\"outcome\":\"failed\"'",
        shows: &["SecretConflict"],
        ..NONE
    },
    Situation {
        page: "runbooks.md",
        block: "kubectl get tenants -A -o json | jq -r '.items[] | .metadata as $m | .status.conditions",
        shows: &["customers\tstuck\tSecretConflict"],
        ..NONE
    },
    Situation {
        page: "runbooks.md",
        block: "kubectl get tenants -A -o json | jq -r '.items[] | select(.status.workflow and",
        shows: &["customers\tstuck\tProvision"],
        ..NONE
    },
    Situation {
        page: "runbooks.md",
        block: "kubectl get tenants -A -o json | jq -r '.items[] | select(.spec.credentials.rotateAfterSeconds)",
        before: r#"kubectl patch ten -n customers acme --type merge -p '{"spec":{"credentials":{"rotateAfterSeconds":7776000}}}'"#,
        shows: &["customers\tacme\t7776000\t20"],
        ..NONE
    },
    Situation {
        page: "runbooks.md",
        block: "kubectl -n default get events --field-selector involvedObject.name",
        before: r#"kubectl patch ten -n customers acme --type merge -p \
              '{"spec":{"state":"Deprovisioned","stateReason":"contract ended"}}'
            kubectl wait -n customers --for=jsonpath='{.status.access}'=Blocked --timeout=60s ten/acme"#,
        after: r#"kubectl patch ten -n customers acme --type merge -p '{"spec":{"state":"Active"}}'
            kubectl wait -n customers --for=condition=Ready --timeout=60s ten/acme"#,
        shows: &["MassDeletion", "acme"],
    },
    Situation {
        page: "runbooks.md",
        block: "kubectl get tenants -A -o json | jq -r '.items[] | select(.status.state == \"Deprovisioning\"",
        shows: &["CutAccess"],
        ..NONE
    },
    Situation {
        page: "runbooks.md",
        block: "kubectl -n tenantry-system logs \"$POD\" --since=2h",
        shows: &["DropDatabase"],
        ..NONE
    },
    Situation {
        page: "runbooks.md",
        block: "kubectl get databaseservers -o json",
        before: r#"psql "$TENANTRY_ADMIN_URL" -c 'CREATE DATABASE tenant_before' -c "COMMENT ON DATABASE tenant_before
              IS 'tenantry:tenant:01890a5d-ac96-774b-bcce-b302099a8057'"
            kubectl wait --for=condition=Leftovers --timeout=120s dbs/default"#,
        shows: &["default\tLeftovers\t", "tenant_before"],
        ..NONE
    },
    Situation {
        page: "runbooks.md",
        block: "kubectl -n tenantry-system get secret \"$CA_SECRET\"",
        before: r#"kubectl -n tenantry-system create secret generic "$CA_SECRET" --from-file=ca.crt"#,
        shows: &["Not After : ", "old", "new"],
        ..NONE
    },
    Situation {
        page: "runbooks.md",
        block: "kubectl get databaseserver \"$SERVER\"",
        shows: &["db-admin"],
        ..NONE
    },
    Situation {
        page: "runbooks.md",
        block: "kubectl describe tenantmodule \"$MODULE\"",
        before: r#"echo 'CREATE TABLE invoices (id bigint PRIMARY KEY, total bigint);' > 0001_invoices.sql
            kubectl -n tenantry-system create configmap billing-1 --from-file=0001_invoices.sql \
              --dry-run=client -o yaml | kubectl apply -f -
            kubectl apply -f - <<'END'
{apiVersion: tenantry.dev/v1alpha1, kind: TenantModule, metadata: {name: billing},
 spec: {default: true, source: {configMaps: [{name: billing-1}]}}}
END
            kubectl wait --for=condition=Ready --timeout=60s tmod/billing
            kubectl wait -n customers --timeout=60s ten/acme \
              --for=jsonpath='{.status.modules[?(@.name=="billing")].version}'=1"#,
        shows: &["billing-1"],
        ..NONE
    },
    Situation {
        page: "runbooks.md",
        block: "kubectl get tenants -A -o json | jq -r '.items[] | .metadata as $m | .status.modules",
        // Data of one tenant on which a file fails that a scratch database takes.
        before: r#"psql "$ACME_ADMIN_URL" -c 'INSERT INTO invoices SELECT g, 1 FROM generate_series(1, 2) AS g'
            echo 'CREATE UNIQUE INDEX ON invoices (total);' > 0002_unique.sql
            kubectl -n tenantry-system create configmap billing-1 --from-file=0001_invoices.sql \
              --from-file=0002_unique.sql --dry-run=client -o yaml | kubectl replace -f -
            kubectl wait -n customers --timeout=60s ten/acme \
              --for=jsonpath='{.status.modules[?(@.name=="billing")].state}'=Failed"#,
        shows: &["customers\tacme\tbilling\tFailed\t"],
        ..NONE
    },
    Situation {
        page: "runbooks.md",
        block: "kubectl describe tenantplan \"$PLAN\"",
        shows: &["starter"],
        ..NONE
    },
    Situation {
        page: "uninstall.md",
        block: "kubectl get ten,hold,supp -A",
        // No operator runs: see the test.
        before: "kubectl delete ten -n customers acme --wait=false",
        after: "kubectl wait -n customers --for=delete --timeout=30s ten/acme",
        shows: &["tenant.tenantry.dev/acme", "customers"],
    },
];

/// Blocks that bash only reads: the page, how they begin, and why they are not run.
pub const ONLY_READ: &[(&str, &str, &str)] = &[(
    "../README.md",
    "make demo",
    "starts an environment and the tests, as this one; `make demo` stays running",
)];
