package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/callgate/callgate/emulators"
)

// maxBytes is the largest configuration file, in bytes.
const maxBytes = 1 << 20

// Load reads the configuration in a regular file of at most 1 MiB. An error of
// its text is an *[Errors]; one of reading it wraps what the kernel said, so
// that fs.ErrNotExist can be told from the rest ([Default] is for that).
func Load(path string, kinds []emulators.Kind) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data, kinds)
}

func readFile(path string) ([]byte, error) {
	// O_NONBLOCK: opening a FIFO waits for its writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	wrong := func(what string) error {
		return &os.PathError{Op: "open", Path: path, Err: errors.New(what)}
	}
	switch {
	case info.IsDir():
		return nil, wrong("is a directory, want a regular file")
	case !info.Mode().IsRegular():
		return nil, wrong("want a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxBytes {
		return nil, wrong(fmt.Sprintf("larger than %d bytes", maxBytes))
	}
	return data, nil
}
