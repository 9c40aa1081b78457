package emulatortest

import (
	"bytes"
	"errors"
	"io"

	"go.yaml.in/yaml/v3"

	"github.com/callgate/callgate/emulators"
)

// Policy is YAML text, as it stands below a kind's name in a profile. The
// empty one is a profile that names the kind and says no more.
type Policy string

var _ emulators.Policy = Policy("")

// Decode implements [emulators.Policy].
func (p Policy) Decode(into any) error {
	d := yaml.NewDecoder(bytes.NewReader([]byte(p)))
	d.KnownFields(true)
	if err := d.Decode(into); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
