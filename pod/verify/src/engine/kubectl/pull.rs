//! Pods that cannot start because an image cannot be had, which no waiting mends.

use serde_json::Value;

/// The kubelet's words for it, in `state.waiting.reason`.
const REASONS: [&str; 4] = ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"];

/// The first container of a list of Pods whose image cannot be had, and what the kubelet says.
pub(super) fn failure(pods: &Value) -> Option<String> {
    let statuses = pods["items"].as_array().into_iter().flatten().flat_map(|pod| {
        ["initContainerStatuses", "containerStatuses"]
            .into_iter()
            .filter_map(|list| pod["status"][list].as_array())
            .flatten()
    });
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for status in statuses {
        let waiting = &status["state"]["waiting"];
        if REASONS.iter().any(|reason| waiting["reason"] == *reason) {
            let (name, image) = (text(&status["name"]), text(&status["image"]));
            let (reason, message) = (text(&waiting["reason"]), text(&waiting["message"]));
            return Some(format!(
                "{reason}: the node has no image {image} for {name}, and cannot pull it: {message}"
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_image_that_cannot_be_had_is_named() {
        let waiting = json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}});
        let running = json!({"name": "web-server", "image": "web-server:dev", "state": {"running": {}}});
        let pods = json!({"items": [{"status": {
            "initContainerStatuses": [{"name": "log-agent", "image": "log-agent:v9", "state": waiting}],
            "containerStatuses": [running],
        }}]});
        let failure = failure(&pods).unwrap();
        assert!(
            failure.starts_with("ErrImagePull: the node has no image log-agent:v9 for log-agent"),
            "{failure}"
        );
        let healthy = json!({"items": [{"status": {"containerStatuses": [running]}}, {"status": {}}]});
        assert_eq!(super::failure(&healthy), None);
    }
}
