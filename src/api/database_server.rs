//! `DatabaseServer`: where tenant databases live.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    rules::{conditions, not_yet, resource_name, rule},
    words::words,
};

/// How to reach a PostgreSQL server, and who may have tenants there.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "tenantry.dev",
    version = "v1alpha1",
    kind = "DatabaseServer",
    status = "DatabaseServerStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "dbs",
    category = "tenantry",
    doc = "A PostgreSQL server (15 to 18) that hosts tenant databases. It needs a login that may create databases and roles and is no superuser; `tenantry server-setup` prints the script that makes it. The Secrets that it names are in the operator's namespace. It cannot be deleted while a tenant has a database there.",
    validation = rule("self.metadata.name.size() <= 63", "metadata.name must have at most 63 characters: choose a shorter name"),
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.host"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version", description = "PostgreSQL's version"),
    printcolumn(name = "Tenants", type_ = "integer", json_path = ".status.tenants", description = "Tenants that have a database there"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseServerSpec {
    /// What kind of server it is: PostgreSQL.
    pub engine: Engine,

    /// The server's DNS name or address, without a scheme and without a port. With TLS mode VerifyFull it must be in
    /// the server's certificate.
    #[schemars(length(max = 253))]
    #[x_kube(validation = rule(HOST, "host must be a DNS name or an IP address alone, without scheme, port or user, as in db.example; the port goes into port"))]
    pub host: String,

    /// The server's port; 5432 if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,

    /// The Secret with the operator's login to this server: keys username and password.
    pub admin_secret_ref: SecretRef,

    /// How the connection to the server is protected; unset: VerifyFull with the certificate authorities of the
    /// operator's own system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,

    /// What the tenants are told instead of the above, e.g. the address of a connection pooler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Publish>,

    /// What the names of the tenant databases start with; `tenant_` if unset. At most 16 characters of a-z, 0-9 and
    /// '_', starting with a letter. A change counts for new tenants; a tenant's name never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(
        validation = rule("self.matches('^[a-z][a-z0-9_]*$')", "prefix must have 1 to 16 characters of a-z, 0-9 and '_' and start with a letter, as in tenant_"),
        validation = rule(
            "!self.startsWith('tenantry_') && !'tenantry_'.startsWith(self) && !self.startsWith('pg_') && !'pg_'.startsWith(self)",
            "prefix must be neither the beginning of tenantry_ or pg_ nor start with one of them, because names of Tenantry and PostgreSQL do: choose another, as in tenant_",
        ),
    )]
    pub prefix: Option<String>,

    /// The namespaces whose Tenants may be hosted here; unset: all; empty: none. At most 500. A Tenant from elsewhere
    /// has Ready False with the reason NamespaceNotAllowed; one that is hosted here already keeps its database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500), inner(length(max = 63)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = rule(
            "self.all(name, name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'))",
            "allowedNamespaces must list names of namespaces: a-z, 0-9 and '-', with a letter or a digit at both ends",
        ),
    )]
    pub allowed_namespaces: Option<Vec<String>>,

    /// How many tenants the server takes. Not supported yet: refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = not_yet("capacity"))]
    pub capacity: Option<i64>,

    /// How many databases are kept ready for new tenants; 0 if unset. Not supported yet: must be 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rule("self == 0", "warmPool must be 0 or left out: databases kept ready are not supported yet"))]
    pub warm_pool: Option<i64>,
}

/// A DNS name, or an address of IPv4 or IPv6.
const HOST: &str = r"self.matches('^([a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?([.][a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?)*[.]?|[0-9a-fA-F]*:[0-9a-fA-F:.]+)$')";

/// What kind of server it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Engine {
    /// PostgreSQL 15 or newer.
    #[default]
    PostgreSQL,
}
words!(Engine { PostgreSQL => "PostgreSQL" });

/// The name of a Secret in the operator's namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// The Secret's name.
    #[schemars(length(max = 253))]
    #[x_kube(validation = resource_name("name", "Secret"))]
    pub name: String,
}

/// A key of a Secret in the operator's namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(length(max = 253))]
    #[x_kube(validation = resource_name("name", "Secret"))]
    pub name: String,
    /// The key in the Secret.
    #[schemars(length(max = 253))]
    #[x_kube(validation = rule("self.matches('^[-._a-zA-Z0-9]+$')", "key must be a key of a Secret: letters, digits, '-', '_' and '.', as in ca.crt"))]
    pub key: String,
}

/// How a connection is protected.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rule(
    "!has(self.caSecretRef) || !has(self.mode) || self.mode in ['VerifyCA', 'VerifyFull']",
    "tls.caSecretRef has no meaning with mode Disable or Require, which verify nothing: set mode to VerifyFull or VerifyCA, or remove caSecretRef",
))]
pub struct ServerTls {
    /// VerifyFull (the default): encrypted, and the server's certificate must be issued by a known authority for this
    /// host. VerifyCA: as before, for whatever host. Require: encrypted, with whatever certificate. Disable: not
    /// encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<TlsMode>,
    /// The certificate authority to trust, in PEM; unset: those of the operator's own system. Tenants get it too, as
    /// the key certificates of their Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
}

/// How much of a connection's protection is demanded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TlsMode {
    /// No encryption.
    Disable,
    /// Encryption with whatever certificate.
    Require,
    /// Encryption, and a certificate of a known authority.
    #[serde(rename = "VerifyCA")]
    VerifyCa,
    /// Encryption, and a certificate of a known authority for this host.
    #[default]
    VerifyFull,
}
words!(TlsMode {
    Disable => "Disable",
    Require => "Require",
    VerifyCa => "VerifyCA",
    VerifyFull => "VerifyFull",
});

/// What tenants are told about the server.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Publish {
    /// The host that tenants connect to; the server's own if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rule(HOST, "publish.host must be a DNS name or an IP address alone, without scheme, port or user, as in pooler.example; the port goes into publish.port"))]
    pub host: Option<String>,
    /// The port that tenants connect to; the server's own if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// The sslmode that tenants are told, in libpq's words; the one of tls.mode if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sslmode: Option<SslMode>,
}

/// A protection of the connection, in libpq's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// No encryption.
    Disable,
    /// Encryption with whatever certificate.
    Require,
    /// Encryption, and a certificate of a known authority.
    VerifyCa,
    /// Encryption, and a certificate of a known authority for this host.
    VerifyFull,
}
words!(SslMode {
    Disable => "disable",
    Require => "require",
    VerifyCa => "verify-ca",
    VerifyFull => "verify-full",
});

/// What is known about the server. Written by the operator alone.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseServerStatus {
    /// The metadata.generation that this status is about; -1 until the operator has seen the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// PostgreSQL's version, e.g. 18.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How many tenants have a database there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<i64>,
    /// The conditions, by type: Ready, Reachable, Privileged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}
