# All images for both architectures, with a list of what is in them and of how they were made:
#
#   REGISTRY=… TAG=0.1.0 REVISION=$(git rev-parse HEAD) docker buildx bake --file deploy/docker-bake.hcl --push
#
# From the repository's root.
variable "TAG" { default = "dev" }
variable "REVISION" { default = "unknown" }
variable "REGISTRY" { default = "" }

group "default" {
  targets = ["image"]
}

target "image" {
  name       = name
  matrix     = { name = ["file-puller", "web-server", "log-agent", "content-manager", "pause"] }
  context    = "."
  dockerfile = "deploy/Dockerfile"
  target     = name
  tags       = ["${REGISTRY}${name}:${TAG}"]
  args       = { VERSION = TAG, REVISION = REVISION }
  platforms  = ["linux/amd64", "linux/arm64"]
  attest     = ["type=sbom", "type=provenance,mode=max"]
}
