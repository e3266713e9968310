# Makes an encrypted disk of a disk image that is there:
#
#   packer build -var image=debian.qcow2 web1.pkr.hcl
#
# Where the image comes from is the builder's business: README.md has a "qemu" builder in this place.

variable "image" {
  type        = string
  description = "disk image, raw or QCOW2, with Linux installed in it"
}

variable "passphrase" {
  type        = string
  sensitive   = true
  default     = ""
  description = "passphrase of the disk; if it is empty, sealboot makes one"
}

variable "tools" {
  type        = string
  default     = ""
  description = "folder with GRUB and OVMF, laid out as the root of a file system; if it is empty, the machine's"
}

variable "sealboot" {
  type    = string
  default = "sealboot"
}

source "file" "web1" {
  source = var.image
  target = "built/web1"
}

build {
  sources = ["source.file.web1"]

  post-processors {
    post-processor "sealboot" {
      output_directory = "web1"
      append           = "console=ttyS0 quiet"
      vcpus            = "1-4"
      passphrase       = var.passphrase
      tools            = var.tools
      sealboot         = var.sealboot
    }
    post-processor "manifest" {
      output = "manifest.json"
    }
  }
}
