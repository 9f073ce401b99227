//! The Secret of a support access. It belongs to the SupportAccess, so that it is deleted with it also while no operator runs,
//! and carries the tenant's id, so that it is deleted with the tenant. It is never one that exists already.

use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, PostParams, Preconditions},
};

use crate::{
    api::{
        LABEL_MANAGED_BY, LABEL_SUPPORT_ACCESS, LABEL_TENANT_ID, MANAGED_BY, support_access::SupportAccess,
    },
    controller::{
        context::Context,
        deletion::took_rights_away,
        tenant::{
            failure::StepError,
            secrets::{Address, CONNECTION_TYPE, entries},
        },
    },
    domain::{placement::Placement, support::Grant},
    postgres::{server::Server, tenant::credentials::SecretText},
};

/// Its name.
pub fn name_of(access: &str) -> String {
    format!("{access}-support")
}

/// What it is written from.
pub struct SupportSecret<'a> {
    /// The object.
    pub object: &'a SupportAccess,
    /// The tenant's database.
    pub placement: &'a Placement,
    /// What was granted.
    pub grant: &'a Grant,
    /// The password.
    pub password: &'a SecretText,
    /// The server.
    pub server: &'a Server,
}

impl SupportSecret<'_> {
    /// Writes it, instead of one that an earlier attempt left.
    pub async fn write(&self, context: &Context) -> Result<(), StepError> {
        let namespace = self.object.namespace().unwrap_or_default();
        let name = name_of(&self.object.name_any());
        delete(&namespace, &self.object.name_any(), context).await?;
        let api = Api::<Secret>::namespaced(context.client.clone(), &namespace);
        let params = PostParams { field_manager: Some(MANAGED_BY.into()), ..PostParams::default() };
        match api.create(&params, &self.content(&name, context)).await {
            Err(kube::Error::Api(answer)) if answer.is_already_exists() => {
                Err(StepError::SecretConflict { name, uid: None })
            }
            created => Ok(created.map(drop)?),
        }
    }

    fn content(&self, name: &str, context: &Context) -> Secret {
        let Self { object, placement, grant, password, server } = self;
        let resource = context.database_server(&placement.server);
        let address = Address::of(server, resource.as_deref());
        let entries = entries(&address, name, &grant.login, password.expose(), &placement.database);
        let entries = entries.into_iter().map(|(key, value)| (key.into_owned(), value));
        let data = entries.chain([("expires-at".to_owned(), grant.expires_at.to_string())]);
        let labels = [
            (LABEL_MANAGED_BY, MANAGED_BY.to_owned()),
            (LABEL_SUPPORT_ACCESS, object.name_any()),
            (LABEL_TENANT_ID, placement.tenant.to_string()),
        ];
        let owner = OwnerReference {
            api_version: SupportAccess::api_version(&()).into_owned(),
            kind: SupportAccess::kind(&()).into_owned(),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: None,
        };
        Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: object.namespace(),
                labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            type_: Some(CONNECTION_TYPE.into()),
            data: Some(data.map(|(key, value)| (key, ByteString(value.into_bytes()))).collect()),
            ..Secret::default()
        }
    }
}

/// Deletes the Secret of the SupportAccess of this name. One of that name that is another's stays.
pub async fn delete(namespace: &str, access: &str, context: &Context) -> Result<(), StepError> {
    let api = Api::<Secret>::namespaced(context.client.clone(), namespace);
    let name = name_of(access);
    let found = match api.get_metadata_opt(&name).await {
        Err(error) if took_rights_away(&error, namespace, &context.client).await => return Ok(()),
        found => found?,
    };
    let Some(found) = found.filter(|found| {
        found.labels().get(LABEL_SUPPORT_ACCESS).is_some_and(|label| label == access)
            && found.labels().contains_key(LABEL_TENANT_ID)
    }) else {
        return Ok(());
    };
    let exactly = Preconditions { uid: found.uid(), resource_version: None };
    let params = DeleteParams { preconditions: Some(exactly), ..DeleteParams::default() };
    match api.delete(&name, &params).await {
        Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => Ok(()),
        Err(error) if took_rights_away(&error, namespace, &context.client).await => Ok(()),
        deleted => Ok(deleted.map(drop)?),
    }
}
