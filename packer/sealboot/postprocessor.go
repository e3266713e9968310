// Package sealboot is Packer's post-processor "sealboot": it makes an encrypted disk, its firmware and its boot record of
// the image that a Packer build has made.
//
// It has no cryptography of its own: it chooses the source among the artifact's files and runs the installed program,
// `sealboot build`, whose messages and refusals it passes on. The passphrase is made by sealboot and stays in the file
// that sealboot writes; one that is given as a sensitive variable goes to sealboot through standard input. The output
// folder is whole or absent: it is removed if sealboot fails or the build is cancelled.
package sealboot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hcldec"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
)

// grace is how long sealboot may take to remove what it was making.
const grace = 10 * time.Second

// PostProcessor is Packer's interface of that name.
type PostProcessor struct{ config Config }

// ConfigSpec gives the fields of a block.
func (p *PostProcessor) ConfigSpec() hcldec.ObjectSpec {
	return new(FlatConfig).HCL2Spec()
}

// Configure reads and checks the fields.
func (p *PostProcessor) Configure(raws ...any) error {
	return p.config.decode(raws...)
}

// PostProcess makes the disk. As Packer has it by default, the input is removed then, unless keep_input_artifact says otherwise
// or the output stands in a folder of the input's files, which an artifact may remove as a whole.
func (p *PostProcessor) PostProcess(ctx context.Context, ui packersdk.Ui, input packersdk.Artifact) (packersdk.Artifact, bool, bool, error) {
	source, err := choose(p.config.Source, input.Files())
	if err != nil {
		return nil, false, false, err
	}
	output, err := newFolder(p.config.OutputDirectory, p.config.PackerForce)
	if err != nil {
		return nil, false, false, err
	}
	ui.Say(fmt.Sprintf("Making an encrypted disk of %s in %s", source, output.path))
	artifact, err := p.build(ctx, ui, source)
	if err != nil {
		return nil, false, false, errors.Join(err, output.discard())
	}
	if err := output.keep(); err != nil {
		ui.Error(err.Error())
	}
	within, err := besideInput(output.path, input.Files())
	if err != nil {
		return artifact, true, true, err
	}
	return artifact, within, within, nil
}

func (p *PostProcessor) build(ctx context.Context, ui packersdk.Ui, source string) (*Artifact, error) {
	var stdin io.Reader
	if p.config.Passphrase != "" {
		stdin = strings.NewReader(p.config.Passphrase)
	}
	sealboot := program{path: p.config.Sealboot, grace: grace, line: ui.Message}
	printed, err := sealboot.run(ctx, p.config.arguments(source), stdin)
	if err != nil {
		return nil, err
	}
	return newArtifact(printed)
}

// besideInput says whether the output stands in or below a folder of the input's files.
func besideInput(output string, files []string) (bool, error) {
	output, err := filepath.Abs(output)
	if err != nil {
		return false, err
	}
	for _, file := range files {
		dir, err := filepath.Abs(filepath.Dir(file))
		if err != nil {
			return false, err
		}
		if rel, err := filepath.Rel(dir, output); err == nil && filepath.IsLocal(rel) {
			return true, nil
		}
	}
	return false, nil
}
