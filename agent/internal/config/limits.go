package config

import "time"

// Limits bound what one container, and one user who registers containers, can
// take from the agent. Each is optional in the file, under "limits:".
type Limits struct {
	// RegistrationBytes is the largest registration message, in bytes.
	// Default 4194304 (4 MiB); from 4096 to 67108864.
	RegistrationBytes int `yaml:"registrationBytes" min:"4096" max:"67108864"`
	// WaitingConnectionsPerUID is how many connections of one user may be
	// open that have not registered yet. Default 256; from 1 to 65536.
	WaitingConnectionsPerUID int `yaml:"waitingConnectionsPerUid" min:"1" max:"65536"`
	// ListenersPerUID is how many listeners one registering user may have at
	// a time; a container has one, and one more for each exec that brings its
	// own filter. Default 16384; from 1 to 1048576.
	ListenersPerUID int `yaml:"listenersPerUid" min:"1" max:"1048576"`
	// CallsPerContainer is how many calls of one container may be in flight.
	// Default 256; from 1 to 65536.
	CallsPerContainer int `yaml:"callsPerContainer" min:"1" max:"65536"`
	// WorkersPerContainer is how many calls of one container may block at a
	// time, each on an OS thread. Default 4; from 1 to 256.
	WorkersPerContainer int `yaml:"workersPerContainer" min:"1" max:"256"`
	// CallTimeout is the deadline of one call, in the file a Go duration
	// such as 30s. Default 30s; from 1ms to 24h.
	CallTimeout time.Duration `yaml:"callTimeout" min:"1ms" max:"24h"`
}

// DefaultLimits are the limits of a file that sets none.
func DefaultLimits() Limits {
	return Limits{
		RegistrationBytes:        4 << 20,
		WaitingConnectionsPerUID: 256,
		ListenersPerUID:          16384,
		CallsPerContainer:        256,
		WorkersPerContainer:      4,
		CallTimeout:              30 * time.Second,
	}
}
