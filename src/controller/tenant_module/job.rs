//! The Job and the Secret of one run of an application's own migration tool. Pure: what is built depends on nothing but the
//! arguments.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::{
            Capabilities, Container, EnvVar, EnvVarSource, KeyToPath, LocalObjectReference,
            PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile, Secret,
            SecretKeySelector, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use uuid::Uuid;

use crate::{
    api::{LABEL_MANAGED_BY, MANAGED_BY, module_job::ModuleJob},
    controller::tenant::secrets::Address,
    domain::migration_login::MigrationOwner,
    postgres::tenant::credentials::SecretText,
};

/// The label of a Job, its pod and its Secret with the id of the run.
pub const LABEL_RUN: &str = "tenantry.dev/migration-run";
/// With the name of the TenantModule.
pub const LABEL_MODULE: &str = "tenantry.dev/module";
/// With the id of the tenant; a template has none. Not the label by which a tenant's own Secrets are found.
pub const LABEL_MIGRATED_TENANT: &str = "tenantry.dev/migrated-tenant-id";

/// The name of the container, for its log and its exit code.
pub const CONTAINER: &str = "migrate";

/// The variables of the connection. The last one only where there is a certificate authority.
const VARIABLES: [&str; 8] =
    ["DATABASE_URL", "PGDATABASE", "PGHOST", "PGPASSWORD", "PGPORT", "PGSSLMODE", "PGUSER", "PGSSLROOTCERT"];

/// Where the certificate authority is in the container.
const CA_DIRECTORY: &str = "/var/run/tenantry.dev";
const CA_FILE: &str = "ca.crt";
/// How long Kubernetes keeps a Job after its end, for its log.
const KEPT_SECONDS: i32 = 86_400;
/// Names of Jobs end up in labels and in the names of pods.
const MAX_NAME: usize = 52;

/// The server as the Job's pod reaches it.
#[derive(Clone, Debug)]
pub struct MigrationAddress<'a> {
    /// Host name or address.
    pub host: &'a str,
    /// Port.
    pub port: u16,
    /// As in libpq.
    pub sslmode: &'a str,
    /// PEM certificates, or empty.
    pub certificates: &'a str,
}

impl<'a> From<&'a Address> for MigrationAddress<'a> {
    fn from(address: &'a Address) -> Self {
        let Address { host, port, sslmode, certificates } = address;
        Self { host, port: *port, sslmode, certificates }
    }
}

/// What a run connects with.
#[derive(Clone, Debug)]
pub struct MigrationConnection<'a> {
    /// The server.
    pub address: MigrationAddress<'a>,
    /// The database.
    pub database: &'a str,
    /// The migration login.
    pub login: &'a str,
    /// Its password: letters and digits only.
    pub password: &'a SecretText,
}

/// One run.
#[derive(Clone, Debug)]
pub struct MigrationRun<'a> {
    /// Its id.
    pub run: Uuid,
    /// The TenantModule.
    pub module: &'a str,
    /// The version that it brings the database to.
    pub version: &'a str,
    /// The schema of the module.
    pub schema: &'a str,
    /// Whose database it is.
    pub owner: &'a MigrationOwner,
    /// The namespace of the Job and its Secret.
    pub namespace: &'a str,
}

impl MigrationAddress<'_> {
    fn variables(&self) -> &'static [&'static str] {
        if self.has_certificates() { &VARIABLES } else { &VARIABLES[..VARIABLES.len() - 1] }
    }

    fn has_certificates(&self) -> bool {
        !self.certificates.is_empty()
    }
}

impl MigrationConnection<'_> {
    /// The variables that tools read, by name.
    pub fn environment(&self) -> BTreeMap<&'static str, String> {
        let MigrationAddress { host, port, sslmode, certificates } = &self.address;
        let (database, login, password) = (in_url(self.database), in_url(self.login), self.password.expose());
        // RFC 3986: an IPv6 address is in brackets.
        let url_host = if host.contains(':') { format!("[{host}]") } else { (*host).to_owned() };
        let mut url =
            format!("postgresql://{login}:{password}@{url_host}:{port}/{database}?sslmode={sslmode}");
        let mut variables = BTreeMap::from([
            ("PGHOST", (*host).to_owned()),
            ("PGPORT", port.to_string()),
            ("PGDATABASE", self.database.to_owned()),
            ("PGUSER", self.login.to_owned()),
            ("PGPASSWORD", password.to_owned()),
            ("PGSSLMODE", (*sslmode).to_owned()),
        ]);
        if !certificates.is_empty() {
            url.push_str(&format!("&sslrootcert={CA_DIRECTORY}/{CA_FILE}"));
            variables.insert("PGSSLROOTCERT", format!("{CA_DIRECTORY}/{CA_FILE}"));
        }
        variables.insert("DATABASE_URL", url);
        variables
    }
}

/// The content of a Secret with a connection: a key for each variable, and the certificate authority.
pub fn connection_data(connection: &MigrationConnection<'_>) -> BTreeMap<String, String> {
    let environment = connection.environment().into_iter();
    let mut data: BTreeMap<String, String> =
        environment.map(|(name, value)| (name.to_owned(), value)).collect();
    if connection.address.has_certificates() {
        data.insert(CA_FILE.to_owned(), connection.address.certificates.to_owned());
    }
    data
}

/// A name in a URL. Names that Tenantry makes need no escape; that of an adopted database may.
fn in_url(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(byte.into()),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// The name of the Job of a run.
pub fn job_name(module: &str, run: Uuid) -> String {
    let run = run.simple().to_string();
    let (run, prefix) = (&run[..12], "migrate-");
    let module: String = module.chars().take(MAX_NAME - prefix.len() - run.len() - 1).collect();
    format!("{prefix}{}-{run}", module.trim_end_matches(['-', '.']))
}

impl MigrationRun<'_> {
    /// The name of the Job and of its Secret: the module, for people, and the run.
    pub fn name(&self) -> String {
        job_name(self.module, self.run)
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([
            (LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned()),
            (LABEL_RUN.to_owned(), self.run.to_string()),
            (LABEL_MODULE.to_owned(), self.module.to_owned()),
        ]);
        if let MigrationOwner::Tenant(id) = self.owner {
            labels.insert(LABEL_MIGRATED_TENANT.to_owned(), id.to_string());
        }
        labels
    }

    fn metadata(&self) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.name()),
            namespace: Some(self.namespace.to_owned()),
            labels: Some(self.labels()),
            ..ObjectMeta::default()
        }
    }

    /// The Secret with the connection: a key for each variable, and the certificate authority.
    pub fn secret(&self, connection: &MigrationConnection<'_>) -> Secret {
        let data = connection_data(connection).into_iter();
        Secret {
            metadata: self.metadata(),
            type_: Some("Opaque".to_owned()),
            data: Some(data.map(|(key, value)| (key, ByteString(value.into_bytes()))).collect()),
            ..Secret::default()
        }
    }

    /// The Job. It runs once: what a tool has done when it fails is for a person to see, and a new run has a new login.
    pub fn job(&self, source: &ModuleJob, address: &MigrationAddress<'_>) -> Job {
        let token = source.service_account_name.is_some();
        let pod = PodSpec {
            restart_policy: Some("Never".to_owned()),
            service_account_name: source.service_account_name.clone(),
            automount_service_account_token: Some(token),
            enable_service_links: Some(false),
            image_pull_secrets: Some(
                source.image_pull_secrets.iter().map(LocalObjectReference::from).collect(),
            )
            .filter(|list: &Vec<_>| !list.is_empty()),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    ..SeccompProfile::default()
                }),
                ..PodSecurityContext::default()
            }),
            containers: vec![self.container(source, address)],
            volumes: address.has_certificates().then(|| vec![self.ca_volume()]),
            ..PodSpec::default()
        };
        Job {
            metadata: ObjectMeta {
                annotations: Some(BTreeMap::from([(
                    "tenantry.dev/module-version".to_owned(),
                    self.version.to_owned(),
                )])),
                ..self.metadata()
            },
            spec: Some(JobSpec {
                backoff_limit: Some(0),
                active_deadline_seconds: Some(source.deadline_seconds()),
                ttl_seconds_after_finished: Some(KEPT_SECONDS),
                template: PodTemplateSpec {
                    metadata: Some(ObjectMeta { labels: Some(self.labels()), ..ObjectMeta::default() }),
                    spec: Some(pod),
                },
                ..JobSpec::default()
            }),
            ..Job::default()
        }
    }

    fn container(&self, source: &ModuleJob, address: &MigrationAddress<'_>) -> Container {
        let from_secret = |name: &str| EnvVar {
            name: name.to_owned(),
            value_from: Some(EnvVarSource {
                secret_key_ref: Some(SecretKeySelector {
                    name: self.name(),
                    key: name.to_owned(),
                    optional: None,
                }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        };
        // First, so that the module's own variables and its command can use them. A later one of the same name would win:
        // a module cannot lead its tool to another database.
        let own = source.env.iter().filter(|variable| !VARIABLES.contains(&&*variable.name));
        let env =
            address.variables().iter().map(|name| from_secret(name)).chain(own.map(EnvVar::from)).collect();
        Container {
            name: CONTAINER.to_owned(),
            image: Some(source.image.clone()),
            command: Some(source.command.clone()).filter(|command| !command.is_empty()),
            args: Some(source.args.clone()).filter(|args| !args.is_empty()),
            env: Some(env),
            resources: source.resources.as_ref().map(ResourceRequirements::from),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
                ..SecurityContext::default()
            }),
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            volume_mounts: address.has_certificates().then(|| {
                vec![VolumeMount {
                    name: "tenantry".to_owned(),
                    mount_path: CA_DIRECTORY.to_owned(),
                    read_only: Some(true),
                    ..VolumeMount::default()
                }]
            }),
            ..Container::default()
        }
    }

    fn ca_volume(&self) -> Volume {
        Volume {
            name: "tenantry".to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(self.name()),
                items: Some(vec![KeyToPath {
                    key: CA_FILE.to_owned(),
                    path: CA_FILE.to_owned(),
                    ..KeyToPath::default()
                }]),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::module_job::JobVariable;
    use crate::domain::identity::TenantId;

    fn address(certificates: &str) -> MigrationAddress<'_> {
        MigrationAddress { host: "2001:db8::1", port: 5432, sslmode: "verify-full", certificates }
    }

    fn connection<'a>(certificates: &'a str, password: &'a SecretText) -> MigrationConnection<'a> {
        let address = address(certificates);
        MigrationConnection { address, database: "shop of acme", login: "tenant_acme_migrate", password }
    }

    fn source() -> ModuleJob {
        let variable = |name: &str, value: &str| JobVariable {
            name: name.into(),
            value: Some(value.into()),
            value_from: None,
        };
        ModuleJob {
            image: "registry.example/shop@sha256:0".into(),
            command: vec!["python".into(), "manage.py".into(), "migrate".into()],
            env: vec![variable("FLYWAY_USER", "$(PGUSER)"), variable("PGHOST", "elsewhere.example")],
            ..ModuleJob::default()
        }
    }

    fn built(module: &str, source: &ModuleJob, certificates: &str) -> (Job, Secret) {
        let owner = MigrationOwner::Tenant(TenantId(Uuid::from_u128(5)));
        let run = MigrationRun {
            run: Uuid::from_u128(0xabcd << 96),
            module,
            version: "2026.11.3",
            schema: "public",
            owner: &owner,
            namespace: "tenantry-system",
        };
        let password = SecretText::new("pw");
        let connection = connection(certificates, &password);
        (run.job(source, &connection.address), run.secret(&connection))
    }

    fn text(secret: &Secret, key: &str) -> String {
        String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap()
    }

    fn pod(job: &Job) -> &PodSpec {
        job.spec.as_ref().unwrap().template.spec.as_ref().unwrap()
    }

    #[test]
    fn secret_has_what_tools_read() {
        let (_, secret) = built("shop", &source(), "PEM");
        assert_eq!(
            text(&secret, "DATABASE_URL"),
            "postgresql://tenant_acme_migrate:pw@[2001:db8::1]:5432/shop%20of%20acme?sslmode=verify-full\
             &sslrootcert=/var/run/tenantry.dev/ca.crt"
        );
        for (key, value) in [
            ("PGHOST", "2001:db8::1"),
            ("PGPORT", "5432"),
            ("PGDATABASE", "shop of acme"),
            ("PGUSER", "tenant_acme_migrate"),
            ("PGPASSWORD", "pw"),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", "/var/run/tenantry.dev/ca.crt"),
            ("ca.crt", "PEM"),
        ] {
            assert_eq!(text(&secret, key), value);
        }
        let (_, without) = built("shop", &source(), "");
        assert!(!text(&without, "DATABASE_URL").contains("sslrootcert"));
        assert!(!without.data.unwrap().contains_key("PGSSLROOTCERT"));
    }

    #[test]
    fn module_can_use_the_connection_and_cannot_replace_it() {
        let (job, secret) = built("shop", &source(), "PEM");
        let container = &pod(&job).containers[0];
        let env = container.env.as_ref().unwrap();
        let names: Vec<&str> = env.iter().map(|variable| &*variable.name).collect();
        assert_eq!(names.iter().filter(|name| **name == "PGHOST").count(), 1);
        assert_eq!(*names.last().unwrap(), "FLYWAY_USER");
        // Everything comes from the Secret: the Job itself may be read by more people.
        for variable in &env[..env.len() - 1] {
            let reference = variable.value_from.as_ref().unwrap().secret_key_ref.as_ref().unwrap();
            assert_eq!(Some(&reference.name), secret.metadata.name.as_ref());
            assert_eq!(reference.key, variable.name);
            assert!(secret.data.as_ref().unwrap().contains_key(&variable.name));
        }
        assert!(!serde_json::to_string(&job).unwrap().contains("postgresql://"));
    }

    #[test]
    fn pod_is_as_the_restricted_standard_demands_and_runs_once() {
        let (job, _) = built("shop", &source(), "PEM");
        let spec = job.spec.as_ref().unwrap();
        assert_eq!((spec.backoff_limit, spec.active_deadline_seconds), (Some(0), Some(3600)));
        let pod = pod(&job);
        assert_eq!(pod.restart_policy.as_deref(), Some("Never"));
        assert_eq!(pod.automount_service_account_token, Some(false));
        assert_eq!(pod.security_context.as_ref().unwrap().run_as_non_root, Some(true));
        let container = pod.containers[0].security_context.as_ref().unwrap();
        assert_eq!(container.allow_privilege_escalation, Some(false));
        assert_eq!(container.capabilities.as_ref().unwrap().drop.as_deref(), Some(&["ALL".to_owned()][..]));
        assert!(pod.volumes.is_some());
        let named = ModuleJob { service_account_name: Some("migrator".into()), ..source() };
        let (job, _) = built("shop", &named, "");
        assert_eq!(super::tests::pod(&job).automount_service_account_token, Some(true));
        assert!(super::tests::pod(&job).volumes.is_none());
    }

    #[test]
    fn names_fit_and_labels_are_not_those_of_a_tenants_secrets() {
        let long = format!("a{}", "-b".repeat(40));
        for module in ["shop", &long[..63]] {
            let (job, secret) = built(module, &source(), "");
            let name = job.metadata.name.as_ref().unwrap();
            assert_eq!(Some(name), secret.metadata.name.as_ref());
            assert!(name.len() <= MAX_NAME && !name.contains("--"), "{name}");
            let labels = job.metadata.labels.as_ref().unwrap();
            assert!(labels.values().all(|value| value.len() <= 63));
            assert!(!labels.contains_key(crate::api::LABEL_TENANT_ID));
            assert_eq!(labels[LABEL_MIGRATED_TENANT], "00000000-0000-0000-0000-000000000005");
        }
        assert_eq!(built("shop", &source(), "").0.metadata.name.unwrap(), "migrate-shop-0000abcd0000");
    }
}
