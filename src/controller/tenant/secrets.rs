//! The connection Secret: its content, its owner, and how it is written. Key names are part of the API.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{
    admin_content,
    connection_uris::{ConnectionUris, MOUNTED_KEYS},
    failure::StepError,
    module_entries,
};
use crate::{
    api::{
        LABEL_MANAGED_BY, LABEL_TENANT, LABEL_TENANT_ID, MANAGED_BY,
        database_server::{DatabaseServer, TlsMode},
        tenant::Tenant,
    },
    controller::context::Context,
    domain::{record::TenantRecord, usage::entitlements::Entitlements},
    postgres::{
        Tls,
        server::Server,
        tenant::credentials::{SecretText, password_digest},
    },
    registry::Installation,
};

/// Field manager of the Secrets.
const MANAGER: &str = "tenantry";

/// The Secret type of the Service Binding specification. A Secret's type can never be changed.
pub const CONNECTION_TYPE: &str = "servicebinding.io/postgresql";

/// The keys that the operator writes, apart from those of limits and modules: any other key in a Secret belongs to another client.
const OWN_KEYS: [&str; 18] = [
    "type",
    "provider",
    "host",
    "port",
    "username",
    "password",
    "database",
    "dbname",
    "uri",
    "jdbc-uri",
    MOUNTED_KEYS[0],
    MOUNTED_KEYS[1],
    "pgpass",
    "sslmode",
    "certificates",
    "plan",
    "features",
    admin_content::KEY,
];

/// A Secret as the API server has it.
pub enum Found {
    /// No Secret has that name.
    Absent,
    /// The Secret has this tenant's id. Only such a Secret is read or written.
    Ours(Box<Secret>),
}

/// Whether a Secret belongs to the tenant: by the label with its id or, if that was lost, by what only this tenant's Secrets
/// contain.
pub fn is_ours(secret: &Secret, record: &TenantRecord, installation: &Installation) -> bool {
    secret.labels().get(LABEL_TENANT_ID) == Some(&record.id.to_string())
        || holds_password_of(secret, record, installation)
        || holds_reader_password_of(secret, record, installation)
        || admin_content::holds_credentials_of(secret, record)
}

/// Reads a Secret from the API server, since the store may be behind. A Secret of another owner is an error.
pub async fn find(
    context: &Context,
    namespace: &str,
    name: &str,
    record: &TenantRecord,
) -> Result<Found, StepError> {
    let api = Api::<Secret>::namespaced(context.client.clone(), namespace);
    match api.get_opt(name).await? {
        None => Ok(Found::Absent),
        Some(secret) if is_ours(&secret, record, &context.installation) => Ok(Found::Ours(Box::new(secret))),
        Some(secret) => Err(StepError::SecretConflict { name: name.to_owned(), uid: secret.uid() }),
    }
}

/// Whether a key of a Secret is the operator's. Other keys, labels and annotations belong to the client that added them, and are
/// kept.
fn is_own_key(key: &str) -> bool {
    OWN_KEYS.contains(&key) || key.starts_with("limit.") || module_entries::is_key(key)
}

/// Whether a Secret has what the operator wants in it: its keys, no outdated ones, and its labels.
pub fn is_as_wanted(secret: &Secret, wanted: &Secret) -> bool {
    let own = |secret: &Secret| -> BTreeMap<String, ByteString> {
        let own = secret.data.iter().flatten().filter(|(key, _)| is_own_key(key));
        own.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    own(secret) == own(wanted)
        && wanted.labels().iter().all(|(key, value)| secret.labels().get(key) == Some(value))
}

/// Whether a Secret has everything that the operator wants in it but the keys that an earlier release did not write.
pub fn is_of_earlier_release(secret: &Secret, wanted: &Secret) -> bool {
    let mut completed = secret.clone();
    let data = completed.data.get_or_insert_default();
    let is_new = |key: &str| MOUNTED_KEYS.contains(&key) || key.starts_with(module_entries::SCHEMA);
    for (key, value) in wanted.data.iter().flatten().filter(|(key, _)| is_new(key)) {
        data.entry(key.clone()).or_insert_with(|| value.clone());
    }
    is_as_wanted(&completed, wanted)
}

/// Creates a Secret, or changes the one that was found. A Secret that was created in between belongs to another owner. The
/// operator's keys that are not wanted any more are removed by name: a server-side apply would keep those that it did not
/// apply itself.
pub async fn write(context: &Context, secret: Secret, found: &Found) -> Result<Secret, StepError> {
    let namespace = secret.namespace().unwrap_or_default();
    let name = secret.name_any();
    let api = Api::<Secret>::namespaced(context.client.clone(), &namespace);
    match found {
        Found::Absent => match api
            .create(&PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() }, &secret)
            .await
        {
            Ok(written) => Ok(written),
            Err(kube::Error::Api(answer)) if answer.is_already_exists() => {
                Err(StepError::SecretConflict { name, uid: None })
            }
            Err(error) => Err(error.into()),
        },
        Found::Ours(ours) => {
            let data = secret.data.unwrap_or_default();
            let removed =
                ours.data.iter().flatten().filter(|(key, _)| is_own_key(key) && !data.contains_key(*key));
            let removed = removed.map(|(key, _)| (key.clone(), None));
            let data: BTreeMap<_, _> =
                data.iter().map(|(key, value)| (key.clone(), Some(value))).chain(removed).collect();
            let patch = json!({
                "metadata": {"uid": ours.uid(), "labels": secret.metadata.labels},
                "data": data,
            });
            let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
            Ok(api.patch(&name, &params, &Patch::Merge(&patch)).await?)
        }
    }
}

/// The metadata of every Secret of a tenant. There is no ownerReference: a Secret exists until the row is closed.
pub fn metadata(tenant: &Tenant, record: &TenantRecord, name: &str) -> ObjectMeta {
    let labels = [
        (LABEL_MANAGED_BY, MANAGED_BY.to_owned()),
        (LABEL_TENANT, tenant.name_any()),
        (LABEL_TENANT_ID, record.id.to_string()),
    ];
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: tenant.namespace(),
        labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ..ObjectMeta::default()
    }
}

/// What a connection Secret is built from.
pub struct Connection<'a> {
    /// The Tenant.
    pub tenant: &'a Tenant,
    /// Its row in the registry.
    pub record: &'a TenantRecord,
    /// The login.
    pub login: &'a str,
    /// Its password.
    pub password: &'a SecretText,
    /// Its server, as the operator connects to it.
    pub server: &'a Server,
}

impl Connection<'_> {
    /// The Secret, with the address that the DatabaseServer publishes.
    pub fn secret(&self, name: &str, context: &Context) -> Secret {
        let resource = context.database_server(&self.record.placement.server);
        let address = Address::of(self.server, resource.as_deref());
        let placement = &self.record.placement;
        let mut data = entries(&address, name, self.login, self.password.expose(), &placement.database);
        data.extend(self.record.entitlements.iter().flat_map(plan_entries));
        let modules = &context.state.modules;
        data.extend(self.record.module_versions.iter().flat_map(|module| {
            let name = modules.version_name(&module.name, module.version);
            module_entries::entries(module, name, modules.schema(&module.name))
        }));
        Secret {
            metadata: metadata(self.tenant, self.record, name),
            type_: Some(CONNECTION_TYPE.into()),
            data: Some(
                data.into_iter()
                    .map(|(key, value)| (key.into_owned(), ByteString(value.into_bytes())))
                    .collect(),
            ),
            ..Secret::default()
        }
    }
}

/// The published address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// As in libpq.
    pub sslmode: String,
    /// PEM certificates, or empty.
    pub certificates: String,
}

impl Address {
    /// Whether a connection Secret has this address, and this certificate authority.
    pub fn is_in(&self, secret: &Secret) -> bool {
        let port = self.port.to_string();
        let wanted = [
            ("host", &self.host),
            ("port", &port),
            ("sslmode", &self.sslmode),
            ("certificates", &self.certificates),
        ];
        let data = secret.data.as_ref();
        wanted.iter().all(|(key, value)| {
            data.and_then(|data| data.get(*key)).is_some_and(|found| found.0 == value.as_bytes())
        })
    }

    /// The address that a server publishes.
    pub fn of(server: &Server, resource: Option<&DatabaseServer>) -> Self {
        let publish = resource.and_then(|resource| resource.spec.publish.as_ref());
        let config = server.config();
        let (mode, ca) = match &config.tls {
            Tls::Disable => (TlsMode::Disable, None),
            Tls::Require => (TlsMode::Require, None),
            Tls::VerifyCa { ca } => (TlsMode::VerifyCa, ca.as_deref()),
            Tls::VerifyFull { ca } => (TlsMode::VerifyFull, ca.as_deref()),
        };
        Self {
            host: publish.and_then(|publish| publish.host.clone()).unwrap_or_else(|| config.host.clone()),
            port: publish
                .and_then(|publish| publish.port)
                .and_then(|port| u16::try_from(port).ok())
                .unwrap_or(config.port),
            sslmode: publish
                .and_then(|publish| publish.sslmode)
                .map_or_else(|| sslmode(mode).to_owned(), |sslmode| sslmode.as_str().to_owned()),
            certificates: ca.map(|ca| String::from_utf8_lossy(ca).into_owned()).unwrap_or_default(),
        }
    }
}

fn sslmode(mode: TlsMode) -> &'static str {
    match mode {
        TlsMode::Disable => "disable",
        TlsMode::Require => "require",
        TlsMode::VerifyCa => "verify-ca",
        TlsMode::VerifyFull => "verify-full",
    }
}

/// What a gateway in front of the application can enforce: the plan, its features separated by commas, and each limit.
fn plan_entries(entitlements: &Entitlements) -> Vec<(Cow<'static, str>, String)> {
    let limits = entitlements.limits.iter().map(|(name, maximum)| {
        let value = maximum.map_or_else(|| "unlimited".to_owned(), |maximum| maximum.to_string());
        (format!("limit.{name}").into(), value)
    });
    let plan =
        [("plan".into(), entitlements.plan.clone()), ("features".into(), entitlements.features.join(","))];
    plan.into_iter().chain(limits).collect()
}

/// The entries of the connection Secret of this name, apart from those of the plan and the modules.
pub fn entries(
    address: &Address,
    name: &str,
    login: &str,
    password: &str,
    database: &str,
) -> BTreeMap<Cow<'static, str>, String> {
    let Address { host, port, sslmode, certificates } = address;
    let uris = ConnectionUris { host, port: *port, sslmode, certificates, name, login, password, database };
    let entries = [
        ("type", "postgresql".to_owned()),
        ("provider", "tenantry".to_owned()),
        ("host", host.clone()),
        ("port", port.to_string()),
        ("username", login.to_owned()),
        ("password", password.to_owned()),
        ("database", database.to_owned()),
        ("dbname", database.to_owned()),
        ("uri", uris.uri()),
        ("jdbc-uri", uris.jdbc_uri()),
        (MOUNTED_KEYS[0], uris.uri_mounted()),
        (MOUNTED_KEYS[1], uris.jdbc_uri_mounted()),
        ("pgpass", format!("{}:{port}:{database}:{login}:{password}\n", host.replace(':', "\\:"))),
        ("sslmode", sslmode.clone()),
        ("certificates", certificates.clone()),
    ];
    entries.into_iter().map(|(key, value)| (key.into(), value)).collect()
}

/// The password in a connection Secret.
pub fn password(secret: &Secret) -> Option<SecretText> {
    let bytes = secret.data.as_ref()?.get("password")?;
    String::from_utf8(bytes.0.clone()).ok().map(SecretText::new)
}

/// Whether the registry's digest matches the Secret's password.
pub fn holds_password_of(secret: &Secret, record: &TenantRecord, installation: &Installation) -> bool {
    let digest = password(secret).map(|found| password_digest(&installation.digest_key, record.id, &found));
    digest.is_some() && record.password_digest.as_ref().map(|known| &known.0) == digest.as_ref()
}

/// As [`holds_password_of`], for the password of the reader login.
pub fn holds_reader_password_of(secret: &Secret, record: &TenantRecord, installation: &Installation) -> bool {
    let digest = password(secret).map(|found| password_digest(&installation.digest_key, record.id, &found));
    let known = record.credentials.reader.as_ref().and_then(|reader| reader.digest.as_ref());
    digest.is_some() && known.map(|known| &known.0) == digest.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str) -> Address {
        Address { host: host.into(), port: 5432, sslmode: "verify-full".into(), certificates: "PEM".into() }
    }

    #[test]
    fn connection_secret_has_the_documented_keys() {
        let entries = entries(&address("db.example"), "acme-db", "tenant_acme_app", "pw", "tenant_acme");
        let keys: Vec<_> = entries.keys().map(AsRef::as_ref).collect();
        assert!(keys.iter().all(|key| is_own_key(key)));
        assert_eq!(
            keys,
            [
                "certificates",
                "database",
                "dbname",
                "host",
                "jdbc-uri",
                "jdbc-uri-mounted",
                "password",
                "pgpass",
                "port",
                "provider",
                "sslmode",
                "type",
                "uri",
                "uri-mounted",
                "username",
            ]
        );
        assert_eq!(entries["pgpass"], "db.example:5432:tenant_acme:tenant_acme_app:pw\n");
    }

    #[test]
    fn address_is_compared_with_every_key_of_it() {
        let secret = |address: &Address| {
            let entries = entries(address, "acme-db", "u", "pw", "d").into_iter();
            let data = entries.map(|(key, value)| (key.into_owned(), ByteString(value.into_bytes())));
            Secret { data: Some(data.collect()), ..Secret::default() }
        };
        let published = address("db.example");
        assert!(published.is_in(&secret(&published)) && !published.is_in(&Secret::default()));
        for other in [
            Address { host: "other".into(), ..published.clone() },
            Address { port: 5433, ..published.clone() },
            Address { sslmode: "require".into(), ..published.clone() },
            Address { certificates: String::new(), ..published.clone() },
        ] {
            assert!(!published.is_in(&secret(&other)), "{other:?}");
        }
    }

    #[test]
    fn connection_secret_has_plan_features_and_limits() {
        let entitlements = Entitlements {
            plan: "free".into(),
            limits: [("apiCallsPer15Minutes".to_owned(), Some(100)), ("users".to_owned(), None)].into(),
            features: vec!["scim".into(), "sso".into()],
            sla: None,
            modules: Vec::new(),
        };
        let entries: BTreeMap<_, _> = plan_entries(&entitlements).into_iter().collect();
        assert!(entries.keys().all(|key| is_own_key(key)));
        let wanted = [
            ("plan", "free"),
            ("features", "scim,sso"),
            ("limit.apiCallsPer15Minutes", "100"),
            ("limit.users", "unlimited"),
        ];
        assert_eq!(entries, wanted.map(|(key, value)| (key.into(), value.to_owned())).into());
    }

    #[test]
    fn keys_and_labels_of_others_are_no_difference() {
        let secret = |data: &[&str], labels: &[&str]| -> Secret {
            let all = |keys: &[&str]| -> serde_json::Value {
                keys.iter()
                    .map(|key| ((*key).to_owned(), json!("eA==")))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            };
            serde_json::from_value(json!({"metadata": {"labels": all(labels)}, "data": all(data)})).unwrap()
        };
        let wanted = secret(&["uri", "limit.users"], &["id"]);
        assert!(is_as_wanted(&wanted, &wanted));
        assert!(is_as_wanted(&secret(&["uri", "limit.users", "theirs"], &["id", "theirs"]), &wanted));
        assert!(!is_as_wanted(&secret(&["uri", "limit.users", "limit.seats"], &["id"]), &wanted), "outdated");
        assert!(!is_as_wanted(&secret(&["uri"], &["id"]), &wanted));
        assert!(!is_as_wanted(&secret(&["uri", "limit.users"], &[]), &wanted), "a lost label");

        let wanted = secret(&["uri", "uri-mounted", "jdbc-uri-mounted", "module-schema.core"], &["id"]);
        assert!(is_of_earlier_release(&secret(&["uri", "theirs"], &["id"]), &wanted));
        for changed in
            [secret(&["uri-mounted"], &["id"]), secret(&["uri"], &[]), secret(&["uri", "plan"], &["id"])]
        {
            assert!(!is_of_earlier_release(&changed, &wanted), "{changed:?}");
        }
        let mut other = wanted.clone();
        other.data.as_mut().unwrap().insert("uri-mounted".into(), ByteString(b"other".to_vec()));
        assert!(!is_of_earlier_release(&other, &wanted));
    }

    #[test]
    fn ipv6_host_is_escaped_for_each_format() {
        let entries = entries(&address("::1"), "acme-db", "u", "pw", "d");
        assert_eq!(entries["host"], "::1");
        assert!(entries["pgpass"].starts_with("\\:\\:1:5432:"));
    }
}
