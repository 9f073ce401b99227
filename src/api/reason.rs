//! Every reason: of conditions, Events, failures and metrics. Reasons are part of the API, since users match on them:
//! they are never renamed. `docs/conditions.md` lists them.

use std::fmt;

/// Declares the enum; a variant's name is its string in the API.
macro_rules! reasons {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// Why a condition has its status, why an Event was published, or why a step failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])+ $name,)+
        }

        impl Reason {
            /// All reasons, by name.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The name in the API.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }
    };
}

reasons! {
    /// TenantModule: the content was checked and recorded: tenants get it.
    Accepted,
    /// SupportAccess: the login is gone, and its sessions are ended.
    AccessEnded,
    /// Event: the finalizer was released before revocation of access was verified.
    AccessNotCut,
    /// Event: a session of the login of a SupportAccess was seen first.
    AccessUsed,
    /// Another object has the name of the TenantAccount.
    AccountConflict,
    /// The TenantAccount is there.
    AccountCurrent,
    /// The namespace of the TenantAccount does not exist, is being deleted, or lacks the label that allows accounts.
    AccountNamespaceClosed,
    /// The TenantAccount waits for another object to be deleted, or could not be written: it is tried again.
    AccountPending,
    /// The TenantAccount is there, and asks for what a platform operator decides.
    AccountRequest,
    /// The tenant has full access.
    Active,
    /// Something stands against the adoption of a database.
    AdoptionBlocked,
    /// The database changed since its adoption was confirmed.
    AdoptionChanged,
    /// The server does not allow the adoption of a database.
    AdoptionNotAllowed,
    /// The adoption of a database waits to be confirmed.
    AdoptionUnconfirmed,
    /// Event: the admins' credentials were issued again, since their Secret was lost, changed or expired.
    AdminSecretReplaced,
    /// The server refuses the operator's login.
    AuthenticationFailed,
    /// The registry has the tenant that the status names for another Tenant.
    BoundElsewhere,
    /// Event: a change to a Tenant that is being deleted has no effect.
    ChangeIgnored,
    /// TenantModule: a file differs from the one of that number that was accepted.
    ChecksumChanged,
    /// Another process runs a workflow for this tenant.
    ClaimedElsewhere,
    /// The clocks of the operator and of the registry disagree on whether a grace period is over.
    ClocksDisagree,
    /// A database has another version of its collation than the server.
    CollationMismatch,
    /// Another session changed the same object at the same time.
    ConcurrentChange,
    /// A database or a role of the wanted name belongs to another owner.
    Conflict,
    /// The operator logged in to the server.
    Connected,
    /// Event: the Secret has another login with a new password; the one before stays valid for a while.
    CredentialsRotated,
    /// Event: a database that was adopted could not be given back to its former owner.
    DatabaseKept,
    /// The database does not exist, or another one has its name.
    DatabaseMissing,
    /// Event: the database is another one than before, with the tenant's ownership comment.
    DatabaseRestored,
    /// The server did not answer in time.
    DatabaseTimeout,
    /// The server does not respond.
    DatabaseUnreachable,
    /// Event: the Tenant CRD is being deleted.
    DefinitionDeleted,
    /// Event: the Tenant CRD was deleted and created again.
    DefinitionReplaced,
    /// TenantModule: modules depend on each other.
    DependencyCycle,
    /// TenantModule: a module in dependsOn does not exist.
    DependencyNotFound,
    /// TenantModule: a module in dependsOn is not Ready.
    DependencyNotReady,
    /// A module needs a newer version of another: of a TenantModule, that the other has; of a Tenant, that it is kept at.
    DependencyTooOld,
    /// The tenant is deprovisioned.
    Deprovisioned,
    /// The tenant is being deprovisioned.
    Deprovisioning,
    /// The disk of the server is full.
    DiskFull,
    /// Event: a manual change was repaired.
    DriftRepaired,
    /// TenantModule: two files have the same number.
    DuplicateVersion,
    /// The server's locale does not allow databases in UTF-8.
    EncodingMismatch,
    /// TenantHold, TenantPlan: recorded; PostgreSQL does not enforce it for every tenant yet.
    Enforcing,
    /// Event: the customer's administrator asks for an export.
    ExportRequested,
    /// An extension that a module needs is not on the server, or only a superuser can create it.
    ExtensionNotFound,
    /// Event: the first provisioning failed.
    Failed,
    /// The tenant can still be restored.
    GracePeriod,
    /// Event: the grace of too many tenants was made shorter at once.
    GraceShortened,
    /// SupportAccess: the login is valid.
    Granted,
    /// The plan is being deleted while tenants use it.
    InUse,
    /// Event: the tenant was not used for a long time.
    Inactive,
    /// TenantModule: a file has an invalid name, cannot be read, or has an unknown header.
    InvalidFile,
    /// TenantModule: the image of the source cannot be used.
    InvalidImage,
    /// Event: the object cannot be decoded. TenantHold: its Tenant cannot.
    InvalidObject,
    /// The spec is wrong in a way that the API server cannot check.
    InvalidSpec,
    /// The API server refused a request or failed.
    KubernetesApiError,
    /// The API server does not respond, or fails.
    KubernetesApiUnreachable,
    /// Event: the access to what a former tenant left on a server could not be revoked.
    LeftoverNotCut,
    /// A server has databases or logins of tenants that are deprovisioned or unknown to the registry.
    Leftovers,
    /// A legal hold keeps the tenant's data.
    LegalHold,
    /// Event: a TenantHold was deleted, and its legal hold stays in the registry.
    LegalHoldKept,
    /// Usage exceeds a limit.
    LimitExceeded,
    /// The plan leaves a limit to the tenant's spec, which does not set it.
    LimitNotSet,
    /// An addition would exceed a limit of the tenant's plan.
    LimitReached,
    /// A lock was not granted in time.
    LockTimeout,
    /// A login that must be refused was accepted.
    LoginAccepted,
    /// The login owns objects in other databases and cannot be dropped.
    LoginInUse,
    /// The login does not exist.
    LoginMissing,
    /// Event: too many tenants are being deprovisioned at once.
    MassDeletion,
    /// Event: too many purges came due at once.
    MassPurge,
    /// A module's migration failed.
    MigrationFailed,
    /// Only a superuser can make this change.
    MissingRight,
    /// The operator's login lacks a right.
    MissingRights,
    /// The tenant or its plan names an unknown module.
    ModuleNotFound,
    /// A module that the tenant should have is not Ready.
    ModuleNotReady,
    /// A module that spec.purgeModules names stays; nothing was dropped.
    ModulePurgeRefused,
    /// Event: a module was dropped from the tenant's database, as spec.purgeModules asked for.
    ModulePurged,
    /// A name is too long or not valid for PostgreSQL.
    NameNotPossible,
    /// Every database name for this slug is in use.
    NamesExhausted,
    /// The server does not accept tenants of this namespace.
    NamespaceNotAllowed,
    /// Usage is near a limit.
    NearLimit,
    /// TenantModule: the source has no file.
    NoFiles,
    /// A password verifier is not SCRAM-SHA-256.
    NotAVerifier,
    /// TenantAccount: something in its spec is not allowed, and is not in force.
    NotAllowed,
    /// Usage is not measured yet.
    NotMeasured,
    /// Not checked yet.
    NotReached,
    /// The team's own pipeline has not reported the version of a module.
    NotReported,
    /// The server is out of memory.
    OutOfMemory,
    /// A credential could not be hashed.
    PasswordNotHashed,
    /// Event: the password was replaced, since the Secret was lost or changed.
    PasswordReplaced,
    /// `spec.paused` stops all work.
    Paused,
    /// Event: the customer's administrator changed to another plan, as the plan's selfService allows.
    PlanGranted,
    /// The plan in the spec does not exist.
    PlanNotFound,
    /// Event: the customer's administrator asks for another plan.
    PlanRequested,
    /// SupportAccess: the admission policy that checks who requests and who approves is missing.
    PolicyMissing,
    /// A prepared transaction blocks the operation.
    PreparedTransaction,
    /// Event: the login before a rotation of the credentials is ended.
    PreviousLoginEnded,
    /// Event: the login before a rotation of the credentials is ended, and was still in use.
    PreviousLoginInUse,
    /// The tenant is being provisioned.
    Provisioning,
    /// The breaker of mass deletions is open: nothing is dropped until an operator acknowledges it.
    PurgesFrozen,
    /// The purge has begun and cannot be undone.
    Purging,
    /// A ResourceQuota of the namespace is exhausted.
    QuotaExceeded,
    /// The server accepts no writes.
    ReadOnlyServer,
    /// The registry refuses to change a protected record.
    RecordProtected,
    /// Event: the registry was restored to an older state than the tenant's.
    RegistryBehind,
    /// The registry is busy.
    RegistryBusy,
    /// The registry's database does not exist.
    RegistryDatabaseMissing,
    /// The disk of the registry's server is full.
    RegistryDiskFull,
    /// The registry refused a statement.
    RegistryError,
    /// The registry refuses the operator's login.
    RegistryLoginRefused,
    /// The registry's schema could not be migrated.
    RegistryMigrationFailed,
    /// The registry's server was not prepared with `tenantry server-setup`.
    RegistryNotSetUp,
    /// The operator's login lacks a right in the registry.
    RegistryPermissionDenied,
    /// The registry accepts no writes.
    RegistryReadOnly,
    /// The registry had a row for this Tenant and has none now.
    RegistryRowMissing,
    /// The registry is starting.
    RegistryStarting,
    /// TLS to the registry failed.
    RegistryTlsFailed,
    /// The registry accepts no more connections.
    RegistryTooManyConnections,
    /// The registry was written by a newer version of Tenantry.
    RegistryTooNew,
    /// The registry does not respond.
    RegistryUnreachable,
    /// The registry's URL is not valid.
    RegistryUrlInvalid,
    /// TenantModule: a file could not be applied to the scratch database.
    RehearsalFailed,
    /// TenantModule: the content is being rehearsed, or waits for a server to be rehearsed on.
    Rehearsing,
    /// A replication slot blocks the drop.
    ReplicationSlot,
    /// The API server, a policy or a webhook refuses a request of the operator.
    RequestRefused,
    /// The operator's login has every right that it needs.
    RightsComplete,
    /// The operator's login lacks rights that it can work without.
    RightsReduced,
    /// TenantModule: a file failed on too many tenants: no other tenant gets it.
    RolloutHalted,
    /// TenantModule: tenants are being brought up.
    RolloutRunning,
    /// The database has older migrations than were applied to it.
    SchemaBehind,
    /// TenantModule: the schema is another one than was accepted.
    SchemaChanged,
    /// The database lacks something that its modules created.
    SchemaIncomplete,
    /// A Secret of the wanted name belongs to another owner.
    SecretConflict,
    /// A Secret that the server names, or a key in it, does not exist.
    SecretNotFound,
    /// Event: the connection Secret was updated.
    SecretUpdated,
    /// The server belongs to another installation.
    ServerInUse,
    /// A connection setting of the server is not valid.
    ServerMisconfigured,
    /// The server in the spec does not exist.
    ServerNotFound,
    /// The server exists and is not Ready.
    ServerNotReady,
    /// The DatabaseServer's address leads to another PostgreSQL server than before.
    ServerReplaced,
    /// Event: the server failed over, was restored or was replaced.
    ServerRestored,
    /// The server ended the operator's session.
    SessionEnded,
    /// Event: sessions of the tenant that kept locks for which others waited, or used too much of what all share, were ended.
    SessionsEnded,
    /// Sessions that the operator cannot end block the database.
    SessionsInTheWay,
    /// The settings are larger than 64 KiB.
    SettingsTooLarge,
    /// Event: the tenant has another slug.
    SlugChanged,
    /// Event: the slug belonged to another tenant, which is deprovisioned; this one starts empty.
    SlugReused,
    /// Another tenant has the slug, or had it before.
    SlugTaken,
    /// TenantModule: a ConfigMap, the directory or the image of the source does not exist.
    SourceNotFound,
    /// TenantModule: the container registry refuses to give the image of the source.
    SourceUnauthorized,
    /// TenantModule: the container registry of the source's image does not answer.
    SourceUnreachable,
    /// A statement failed.
    SqlFailed,
    /// The server is starting.
    StartingUp,
    /// A statement was cancelled.
    StatementCancelled,
    /// A step failed.
    StepFailed,
    /// A subscription blocks the drop.
    Subscription,
    /// Access is restricted by the spec, by holds, by open gates, or because a trial or the validity ended.
    Suspended,
    /// The template that tenants are cloned from is damaged.
    TemplateBroken,
    /// TenantHold: its tenant is being deprovisioned and has no access.
    TenantLeaving,
    /// TenantHold: its Tenant does not exist.
    TenantNotFound,
    /// Event: the objects of too many tenants do not exist, and were not deleted.
    TenantsVanished,
    /// A session of the tenant was asked to end and still runs: what it executes ignores termination.
    TerminationIgnored,
    /// The API server throttles requests.
    Throttled,
    /// The server's certificate is not the expected one.
    TlsFailed,
    /// The server accepts no more connections.
    TooManyConnections,
    /// The registry refuses this transition.
    TransitionRefused,
    /// The tenant has full access for a limited time.
    Trial,
    /// Event: the trial in the spec was over before the tenant was activated first.
    TrialAlreadyEnded,
    /// Event: the trial ends soon.
    TrialEnding,
    /// The server gave an unexpected answer.
    UnexpectedAnswer,
    /// A limit of the plan is neither enforced nor listed as published.
    UnknownLimit,
    /// A server has databases or logins of more tenants that the registry does not know than are cut off.
    UnknownTenants,
    /// TenantModule: the rehearsal found what a module may not do.
    UnsafeMigration,
    /// The PostgreSQL version is not supported.
    UnsupportedVersion,
    /// No tenant is on the plan.
    Unused,
    /// Event: the validity ends soon.
    ValidityEnding,
    /// Read back from PostgreSQL and found correct.
    Verified,
    /// TenantModule: a number is missing between the files.
    VersionGap,
    /// The version that a module or a tenant names does not exist.
    VersionNotFound,
    /// TenantModule: the source has fewer files than were accepted, or the version is lower.
    VersionWentBack,
    /// Something that this step needs is not there yet, changed meanwhile, or this process lost the Lease: it is tried again.
    Waiting,
    /// SupportAccess: it waits until another user has approved it.
    WaitingForApproval,
    /// Usage is within the limits.
    WithinLimits,
    /// Event: the annotation that acknowledges the breaker has another token than that of its opening.
    WrongToken,
}

impl Reason {
    /// The reason of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq<Reason> for String {
    fn eq(&self, reason: &Reason) -> bool {
        self == reason.as_str()
    }
}
