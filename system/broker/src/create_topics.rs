//! CreateTopics, as clients ask for it: the controller decides, and this broker answers once it acts by the decision.

use std::rc::Rc;

use protocol::messages::create_topics_response::CreatableTopicResult;
use protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use protocol::{ErrorCode, ResponseBody, str_bytes};

use crate::context::Context;
use crate::topics::may_create;

pub(crate) async fn handle(
    context: &Rc<Context>,
    version: i16,
    mut request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let validate_only = request.validate_only;
    let (topics, refused): (Vec<_>, Vec<_>) =
        std::mem::take(&mut request.topics).into_iter().partition(|t| may_create(&t.name));
    request.topics = topics;
    let mut response = if request.topics.is_empty() {
        CreateTopicsResponse::default()
    } else {
        match context.controller.forward(version, request.into()).await {
            Some(ResponseBody::CreateTopics(response)) => response,
            other => {
                tracing::error!(answered = other.is_some(), "no answer to CreateTopics");
                CreateTopicsResponse::default()
            }
        }
    };
    if !validate_only {
        let created = response.topics.iter().filter(|t| t.error_code == 0).map(|t| t.name.as_str().to_owned());
        let created: Vec<String> = created.collect();
        if !created.is_empty()
            && let Err(error) = context.topics.opened(context, created).await
        {
            // They exist all the same.
            tracing::info!(%error, "new topics are not open yet");
        }
    }
    response.topics.extend(refused.into_iter().map(|topic| {
        CreatableTopicResult::default()
            .with_error_code(ErrorCode::INVALID_TOPIC_EXCEPTION.code())
            .with_error_message(Some(str_bytes(format!("{} is internal", topic.name.as_str()))))
            .with_name(topic.name)
            .with_num_partitions(-1)
            .with_replication_factor(-1)
    }));
    response
}
