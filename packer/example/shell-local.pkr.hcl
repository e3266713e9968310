# The same as web1.pkr.hcl without the plugin: packer build -var image=debian.qcow2 shell-local.pkr.hcl

variable "image" {
  type = string
}

variable "tools" {
  type    = string
  default = "/"
}

source "file" "web1" {
  source = var.image
  target = "built/web1"
}

build {
  sources = ["source.file.web1"]

  post-processor "shell-local" {
    inline = ["sealboot build --source built/web1 --output web1 --tools ${var.tools}"]
  }
}
