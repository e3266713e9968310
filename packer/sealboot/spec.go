package sealboot

import (
	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/zclconf/go-cty/cty"
)

// FlatConfig is Config as HCL has it: one level, each field optional. The SDK decodes into it before it fills a Config; a test
// compares the two field by field.
type FlatConfig struct {
	PackerBuildName     *string           `mapstructure:"packer_build_name" cty:"packer_build_name" hcl:"packer_build_name"`
	PackerBuilderType   *string           `mapstructure:"packer_builder_type" cty:"packer_builder_type" hcl:"packer_builder_type"`
	PackerCoreVersion   *string           `mapstructure:"packer_core_version" cty:"packer_core_version" hcl:"packer_core_version"`
	PackerDebug         *bool             `mapstructure:"packer_debug" cty:"packer_debug" hcl:"packer_debug"`
	PackerForce         *bool             `mapstructure:"packer_force" cty:"packer_force" hcl:"packer_force"`
	PackerOnError       *string           `mapstructure:"packer_on_error" cty:"packer_on_error" hcl:"packer_on_error"`
	PackerUserVars      map[string]string `mapstructure:"packer_user_variables" cty:"packer_user_variables" hcl:"packer_user_variables"`
	PackerSensitiveVars []string          `mapstructure:"packer_sensitive_variables" cty:"packer_sensitive_variables" hcl:"packer_sensitive_variables"`

	OutputDirectory *string  `mapstructure:"output_directory" cty:"output_directory" hcl:"output_directory"`
	Source          *string  `mapstructure:"source" cty:"source" hcl:"source"`
	Size            *string  `mapstructure:"size" cty:"size" hcl:"size"`
	RootPartition   *int     `mapstructure:"root_partition" cty:"root_partition" hcl:"root_partition"`
	Kernels         []string `mapstructure:"kernels" cty:"kernels" hcl:"kernels"`
	Label           *string  `mapstructure:"label" cty:"label" hcl:"label"`
	Append          *string  `mapstructure:"append" cty:"append" hcl:"append"`
	VCPUs           *string  `mapstructure:"vcpus" cty:"vcpus" hcl:"vcpus"`
	VCPUType        *string  `mapstructure:"vcpu_type" cty:"vcpu_type" hcl:"vcpu_type"`
	Profiles        *string  `mapstructure:"profiles" cty:"profiles" hcl:"profiles"`
	KeyFile         *string  `mapstructure:"key_file" cty:"key_file" hcl:"key_file"`
	Passphrase      *string  `mapstructure:"passphrase" cty:"passphrase" hcl:"passphrase"`
	Firmware        *string  `mapstructure:"firmware" cty:"firmware" hcl:"firmware"`
	Agent           *string  `mapstructure:"agent" cty:"agent" hcl:"agent"`
	Tools           *string  `mapstructure:"tools" cty:"tools" hcl:"tools"`
	Sealboot        *string  `mapstructure:"sealboot" cty:"sealboot" hcl:"sealboot"`
}

// FlatMapstructure is what the SDK asks a configuration for.
func (*Config) FlatMapstructure() interface{ HCL2Spec() map[string]hcldec.Spec } {
	return new(FlatConfig)
}

// HCL2Spec names each field and its type.
func (*FlatConfig) HCL2Spec() map[string]hcldec.Spec {
	spec := map[string]hcldec.Spec{}
	for t, names := range map[cty.Type][]string{
		cty.String: {
			"packer_build_name", "packer_builder_type", "packer_core_version", "packer_on_error",
			"output_directory", "source", "size", "label", "append", "vcpus", "vcpu_type", "profiles",
			"key_file", "passphrase", "firmware", "agent", "tools", "sealboot",
		},
		cty.Bool:             {"packer_debug", "packer_force"},
		cty.Number:           {"root_partition"},
		cty.List(cty.String): {"packer_sensitive_variables", "kernels"},
		cty.Map(cty.String):  {"packer_user_variables"},
	} {
		for _, name := range names {
			spec[name] = &hcldec.AttrSpec{Name: name, Type: t}
		}
	}
	return spec
}
