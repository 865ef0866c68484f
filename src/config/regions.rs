//! `{aws-region}` and `{gcp-region}` in a host's name: the clouds have a host per region, and a
//! wildcard would let our CA stand for everything else that they serve.

/// Where Amazon runs Bedrock.
const AWS: &[&str] = &[
    "af-south-1",
    "ap-east-2",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-south-2",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ap-southeast-5",
    "ap-southeast-7",
    "ca-central-1",
    "ca-west-1",
    "eu-central-1",
    "eu-central-2",
    "eu-north-1",
    "eu-south-1",
    "eu-south-2",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "il-central-1",
    "me-central-1",
    "me-south-1",
    "mx-central-1",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-gov-east-1",
    "us-gov-west-1",
    "us-west-1",
    "us-west-2",
];

/// Where Google runs Vertex AI.
const GCP: &[&str] = &[
    "africa-south1",
    "asia-east1",
    "asia-east2",
    "asia-northeast1",
    "asia-northeast2",
    "asia-northeast3",
    "asia-south1",
    "asia-south2",
    "asia-southeast1",
    "asia-southeast2",
    "australia-southeast1",
    "australia-southeast2",
    "europe-central2",
    "europe-north1",
    "europe-southwest1",
    "europe-west1",
    "europe-west2",
    "europe-west3",
    "europe-west4",
    "europe-west6",
    "europe-west8",
    "europe-west9",
    "europe-west12",
    "me-central1",
    "me-central2",
    "me-west1",
    "northamerica-northeast1",
    "northamerica-northeast2",
    "southamerica-east1",
    "southamerica-west1",
    "us-central1",
    "us-east1",
    "us-east4",
    "us-east5",
    "us-south1",
    "us-west1",
    "us-west2",
    "us-west3",
    "us-west4",
];

const CLOUDS: &[(&str, &[&str])] = &[("{aws-region}", AWS), ("{gcp-region}", GCP)];

/// The names that `text` stands for; itself, when there is no placeholder in it.
pub(super) fn expand(text: &str) -> Vec<String> {
    let found = CLOUDS.iter().find(|(placeholder, _)| text.contains(placeholder));
    match found {
        Some((placeholder, regions)) => {
            regions.iter().map(|region| text.replace(placeholder, region)).collect()
        }
        None => vec![text.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_for_each_region() {
        let bedrock = expand("bedrock-runtime.{aws-region}.amazonaws.com");
        assert!(bedrock.contains(&"bedrock-runtime.us-east-1.amazonaws.com".to_owned()));
        assert_eq!(bedrock.len(), AWS.len());
        assert_eq!(expand("{gcp-region}-aiplatform.googleapis.com").len(), GCP.len());
        assert_eq!(expand("api.example.com"), ["api.example.com"]);
        assert_eq!(expand("{region}.example.com"), ["{region}.example.com"]);
    }
}
