package sealboot

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/hashicorp/packer-plugin-sdk/common"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/template/config"
)

// Config is what stands in a post-processor's block. What is left out is as `sealboot build` has it by
// default; README.md describes each field.
type Config struct {
	common.PackerConfig `mapstructure:",squash"`

	OutputDirectory string   `mapstructure:"output_directory"`
	Source          string   `mapstructure:"source"`
	Size            string   `mapstructure:"size"`
	RootPartition   int      `mapstructure:"root_partition"`
	Kernels         []string `mapstructure:"kernels"`
	Label           string   `mapstructure:"label"`
	Append          string   `mapstructure:"append"`
	VCPUs           string   `mapstructure:"vcpus"`
	VCPUType        string   `mapstructure:"vcpu_type"`
	Profiles        string   `mapstructure:"profiles"`
	KeyFile         string   `mapstructure:"key_file"`
	Passphrase      string   `mapstructure:"passphrase"`
	Firmware        string   `mapstructure:"firmware"`
	Agent           string   `mapstructure:"agent"`
	Tools           string   `mapstructure:"tools"`
	Sealboot        string   `mapstructure:"sealboot"`
}

// decode reads the configuration. Nothing in it is a template of Packer's older language, in {{ and }}: HCL has its own, and the
// SDK would refuse a passphrase that is no template, and show it. Packer's log of this plugin hides passphrases.
func (c *Config) decode(raws ...any) error {
	err := config.Decode(c, &config.DecodeOpts{PluginType: BuilderID}, raws...)
	if err != nil {
		return err
	}
	if c.Passphrase != "" {
		packersdk.LogSecretFilter.Set(c.Passphrase)
	}
	if c.Sealboot == "" {
		c.Sealboot = "sealboot"
	}
	return c.validate()
}

// validate gives all complaints at once.
func (c *Config) validate() error {
	var complaints []error
	if c.OutputDirectory == "" {
		complaints = append(complaints, errors.New("output_directory is not set: name a folder for disk, firmware, record and passphrase; it must not exist"))
	}
	if c.KeyFile != "" && c.Passphrase != "" {
		complaints = append(complaints, errors.New("key_file and passphrase are both set: keep one of them"))
	}
	if c.KeyFile == "-" {
		complaints = append(complaints, errors.New("key_file cannot be standard input, which belongs to Packer: set passphrase to a sensitive variable"))
	}
	if c.RootPartition < 0 {
		complaints = append(complaints, fmt.Errorf("root_partition is %d: partitions are numbered from 1", c.RootPartition))
	}
	return errors.Join(complaints...)
}

// arguments are those of `sealboot build`. No secret is among them: a passphrase goes through standard input.
func (c *Config) arguments(source string) []string {
	args := []string{"build", "--json", "--source=" + source, "--output=" + c.OutputDirectory}
	keyFile := c.KeyFile
	if c.Passphrase != "" {
		keyFile = "-"
	}
	for _, flag := range []struct{ name, value string }{
		{"size", c.Size},
		{"label", c.Label},
		{"append", c.Append},
		{"vcpus", c.VCPUs},
		{"vcpu-type", c.VCPUType},
		{"profiles", c.Profiles},
		{"key-file", keyFile},
		{"firmware", c.Firmware},
		{"agent", c.Agent},
		{"tools", c.Tools},
	} {
		if flag.value != "" {
			args = append(args, "--"+flag.name+"="+flag.value)
		}
	}
	if c.RootPartition > 0 {
		args = append(args, "--root-partition="+strconv.Itoa(c.RootPartition))
	}
	for _, kernel := range c.Kernels {
		args = append(args, "--kernel="+kernel)
	}
	return args
}
