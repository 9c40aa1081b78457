//go:build !race

package integration

const raceFlag = ""
