//go:build race

package integration

// raceFlag builds the agent with the race detector when the tests have it.
const raceFlag = "-race"
