//! The request of each row.

use http::Method;
use serde_json::{Value, json};
use tenantry::api::{
    ANNOTATION_ACCEPT_SERVER, ANNOTATION_ADOPT_ROW, ANNOTATION_BREAKER_ACKNOWLEDGED,
    ANNOTATION_RECONCILE_REQUESTED_AT, ANNOTATION_RESUME_REQUESTED_AT, ANNOTATION_ROTATE_CREDENTIALS,
    API_VERSION,
};
use tenantry_test_support::objects;

/// Of the tenants' API, in the namespace of the stage.
const NAMESPACED: &str = "/apis/tenantry.dev/v1alpha1/namespaces/NAMESPACE";
const CLUSTER: &str = "/apis/tenantry.dev/v1alpha1";

/// An act, and its request. `NAMESPACE` in the path is the stage's, `USER` in the body the user, `ROLE` the part of a name
/// that each user has of its own.
pub struct Act {
    pub name: &'static str,
    pub method: Method,
    pub path: String,
    pub body: Value,
    /// It is also done, after the dry run.
    pub real: bool,
}

impl Act {
    fn new(name: &'static str, method: Method, path: String, body: Value) -> Self {
        Self { name, method, path, body, real: false }
    }

    fn really(self) -> Self {
        Self { real: true, ..self }
    }
}

fn read(name: &'static str, path: &str) -> Act {
    Act::new(name, Method::GET, path.to_owned(), Value::Null).really()
}

fn create(name: &'static str, resource: &str, object: Value) -> Act {
    Act::new(name, Method::POST, format!("{NAMESPACED}/{resource}"), object)
}

fn change(name: &'static str, object: &str, patch: Value) -> Act {
    Act::new(name, Method::PATCH, format!("{NAMESPACED}/{object}"), patch)
}

fn delete(name: &'static str, object: &str) -> Act {
    Act::new(name, Method::DELETE, format!("{NAMESPACED}/{object}"), Value::Null)
}

/// An owner that does not exist: the garbage collector would delete the object.
fn owner() -> Value {
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "11111111-1111-1111-1111-111111111111"});
    json!({"metadata": {"ownerReferences": [owner]}})
}

fn annotation(name: &str, value: &str) -> Value {
    json!({"metadata": {"annotations": {name: value}}})
}

fn hold(changes: Value) -> Value {
    objects::hold("hold-ROLE", "target", changes)
}

/// All of them, in any order.
pub fn acts() -> Vec<Act> {
    let mut acts = reading();
    acts.extend(tenants());
    acts.extend(what_destroys());
    acts.extend(holds());
    acts.extend(support());
    acts.extend(accounts());
    acts.extend(platform());
    acts
}

fn reading() -> Vec<Act> {
    vec![
        read("read Tenants", &format!("{NAMESPACED}/tenants")),
        read("read Tenants of another namespace", &format!("{CLUSTER}/namespaces/default/tenants")),
        read("read TenantHolds", &format!("{NAMESPACED}/tenantholds")),
        read("read SupportAccesses", &format!("{NAMESPACED}/supportaccesses")),
        read("read TenantPlans", &format!("{CLUSTER}/tenantplans")),
        read("read TenantModules", &format!("{CLUSTER}/tenantmodules")),
        read("read DatabaseServers", &format!("{CLUSTER}/databaseservers")),
        read("read Events", "/api/v1/namespaces/NAMESPACE/events"),
        read("read Secrets, such as tenants' logins", "/api/v1/namespaces/NAMESPACE/secrets"),
    ]
}

fn tenants() -> Vec<Act> {
    let requested =
        |name: &'static str, key: &str| change(name, "tenants/target", annotation(key, "now-ROLE"));
    let spec = |spec: Value| json!({"spec": spec});
    vec![
        create(
            "create a Tenant",
            "tenants",
            objects::tenant("new-ROLE", json!({"offboarding": null, "paused": true})),
        ),
        change("change a Tenant", "tenants/target", spec(json!({"displayName": "by ROLE"}))).really(),
        change("suspend a Tenant", "tenants/target", spec(json!({"state": "Suspended", "stateReason": "x"}))),
        change(
            "lengthen the grace",
            "tenants/target",
            spec(json!({"offboarding": {"gracePeriodSeconds": 5184000}})),
        ),
        requested("rotate the credentials", ANNOTATION_ROTATE_CREDENTIALS),
        change(
            "change the slug of a Tenant",
            "tenants/target",
            spec(json!({"slug": "renamed", "stateReason": "x"})),
        ),
        change(
            "deprovision a Tenant (`state`)",
            "tenants/target",
            spec(json!({"state": "Deprovisioned", "stateReason": "x"})),
        ),
        delete("delete a Tenant", "tenants/target"),
        change("give a Tenant an owner", "tenants/target", owner()),
        requested("have a Tenant retried", ANNOTATION_RECONCILE_REQUESTED_AT).really(),
        requested("lift the hold `inactivity`", ANNOTATION_RESUME_REQUESTED_AT),
        requested("have a lost registry row written again", ANNOTATION_ADOPT_ROW),
        change("confirm an adoption", "tenants/adopting", spec(json!({"adopt": {"confirm": "abc"}}))),
        change(
            "write the status of a Tenant",
            "tenants/target/status",
            json!({"status": {"state": "Active"}}),
        ),
    ]
}

fn what_destroys() -> Vec<Act> {
    let change = |name: &'static str, spec: Value| change(name, "tenants/target", json!({"spec": spec}));
    let without_grace = json!({"paused": true, "offboarding": {"gracePeriodSeconds": 0}});
    vec![
        create("create a Tenant without a grace", "tenants", objects::tenant("short-ROLE", without_grace)),
        change("shorten the grace", json!({"offboarding": {"gracePeriodSeconds": 86400}})),
        change("drop a module's data", json!({"purgeModules": ["billing"]})),
        change("end a retention", json!({"deletionPolicy": "Purge"})),
        self::change(
            "remove the finalizer of a Tenant",
            "tenants/target",
            json!({"metadata": {"finalizers": null}}),
        ),
    ]
}

fn holds() -> Vec<Act> {
    let change = |name: &'static str, hold: &str, spec: Value| {
        change(name, &format!("tenantholds/{hold}"), json!({"spec": spec}))
    };
    vec![
        create("place a hold of billing", "tenantholds", hold(json!({"trigger": "PaymentFailure"}))).really(),
        create("place another hold", "tenantholds", hold(json!({"trigger": "SecurityIncident"}))),
        create("place a hold without a trigger", "tenantholds", hold(json!({}))),
        create(
            "place a legal hold",
            "tenantholds",
            hold(json!({"trigger": "PaymentFailure", "preserve": true})),
        ),
        change("change a hold of billing", "billing", json!({"mode": "ReadOnly"})).really(),
        change("change another hold", "security", json!({"mode": "ReadOnly"})),
        change("make a hold of billing another", "billing", json!({"trigger": "SecurityIncident"})),
        change("make another hold one of billing", "security", json!({"trigger": "PaymentFailure"})),
        change("make a hold of billing a legal hold", "billing", json!({"preserve": true})),
        self::change(
            "remove the finalizer of another hold",
            "tenantholds/security",
            json!({"metadata": {"finalizers": null}}),
        ),
        delete("lift a hold of billing", "tenantholds/billing"),
        delete("lift another hold", "tenantholds/security"),
        // A request without the name of an object.
        delete("lift all holds of a namespace", "tenantholds"),
    ]
}

fn accounts() -> Vec<Act> {
    let account = json!({"apiVersion": API_VERSION, "kind": "TenantAccount", "metadata": {"name": "new-ROLE"},
        "spec": {}});
    let name = json!({"spec": {"displayName": "Edited by ROLE"}});
    let state = json!({"status": {"displayName": "Forged"}});
    vec![
        read("read TenantAccounts", &format!("{NAMESPACED}/tenantaccounts")),
        change("edit a TenantAccount", "tenantaccounts/account", name).really(),
        create("create a TenantAccount", "tenantaccounts", account),
        delete("delete a TenantAccount", "tenantaccounts/account"),
        change("give a TenantAccount an owner", "tenantaccounts/account", owner()),
        change("write the status of a TenantAccount", "tenantaccounts/account/status", state),
    ]
}

fn support() -> Vec<Act> {
    let request = json!({"apiVersion": API_VERSION, "kind": "SupportAccess",
        "metadata": {"name": "look-ROLE"},
        "spec": {"tenant": "target", "reason": "ticket 4711", "requestedBy": "USER"}});
    let approval = json!({"spec": {"approvedBy": "USER"}});
    vec![
        create("request a support access", "supportaccesses", request).really(),
        change("approve another user's support access", "supportaccesses/waiting", approval),
        change(
            "remove the finalizer of a support access",
            "supportaccesses/waiting",
            json!({"metadata": {"finalizers": null}}),
        ),
        delete("end a support access", "supportaccesses/waiting"),
    ]
}

fn platform() -> Vec<Act> {
    let change = |name: &'static str, path: String, patch: Value| Act::new(name, Method::PATCH, path, patch);
    let module = json!({"apiVersion": API_VERSION, "kind": "TenantModule", "metadata": {"name": "new-ROLE"},
        "spec": {"source": {"external": {}}, "version": "1"}});
    vec![
        change(
            "change a TenantPlan",
            format!("{CLUSTER}/tenantplans/free"),
            json!({"spec": {"sla": "99.9"}}),
        ),
        Act::new("create a TenantModule", Method::POST, format!("{CLUSTER}/tenantmodules"), module),
        change(
            "change a DatabaseServer",
            format!("{CLUSTER}/databaseservers/default"),
            json!({"metadata": {"labels": {"changed": "true"}}}),
        ),
        change(
            "accept a replaced server",
            format!("{CLUSTER}/databaseservers/default"),
            annotation(ANNOTATION_ACCEPT_SERVER, "7"),
        ),
        change(
            "acknowledge the mass-deletion breaker",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/tenants.tenantry.dev".to_owned(),
            annotation(ANNOTATION_BREAKER_ACKNOWLEDGED, "7"),
        ),
    ]
}
