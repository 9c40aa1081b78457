package agent

import (
	"github.com/callgate/callgate/agent/internal/config"
)

// CheckConfig says what is wrong with a configuration file: one line for each
// thing, with file, line, column, field and what was expected. nil if nothing.
func CheckConfig(path string) error {
	_, err := config.Load(path, Kinds())
	return err
}

// ProfileKinds lists the kinds that a profile of the configuration has on: the
// emulators that a seccomp profile for it must have calls stopped for. Of cfg
// only what concerns the configuration is looked at.
func ProfileKinds(cfg Config, profile string) ([]string, error) {
	loaded, err := New(cfg).loadConfig()
	if err != nil {
		return nil, err
	}
	p, err := loaded.Profile(profile)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, kind := range p.Kinds() {
		names = append(names, kind.Name)
	}
	return names, nil
}
