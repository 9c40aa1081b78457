package main

import (
	"encoding/json"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestProfile(t *testing.T) {
	out := callgateRan(t, "profile", "--socket", "/run/x.sock", "--config", file(t, "c.yaml", "profiles: {default: {mknod: {}}}")).fine(t)
	var p specs.LinuxSeccomp
	must(t, json.Unmarshal([]byte(out), &p))
	if p.ListenerPath != "/run/x.sock" {
		t.Errorf("listenerPath is %q", p.ListenerPath)
	}
	notified := map[string]bool{}
	for _, rule := range p.Syscalls {
		for _, name := range rule.Names {
			if rule.Action == specs.ActNotify {
				notified[name] = true
			}
		}
	}
	if !notified["mknod"] || !notified["mknodat"] || len(notified) != 2 {
		t.Errorf("notified are %v, want mknod and mknodat", notified)
	}
}

func TestProfileOff(t *testing.T) {
	out := callgateRan(t, "profile", "--config", file(t, "c.yaml", "profiles: {default: {}}")).fine(t)
	var p specs.LinuxSeccomp
	must(t, json.Unmarshal([]byte(out), &p))
	for _, rule := range p.Syscalls {
		if rule.Action == specs.ActNotify {
			t.Errorf("notified are %v, want none", rule.Names)
		}
	}
}

func TestProfileFails(t *testing.T) {
	config := file(t, "c.yaml", "profiles: {builder: {mknod: {}}, other: {}}")
	callgateRan(t, "profile", "--config", config, "--profile", "buildr").fails(t, "buildr", "builder")
	callgateRan(t, "profile", "--config", config, "--profile", "q").fails(t, "builder", "other")
	callgateRan(t, "profile", "--config", "/nowhere.yaml").fails(t, "/nowhere.yaml", "no such file")
	callgateRan(t, "profile", "--base", "/nowhere.json").fails(t, "/nowhere.json", "no such file")
	bad := file(t, "base.json", `{"defaultAction": "SCMP_ACT_WHATEVER"}`)
	callgateRan(t, "profile", "--base", bad).fails(t, bad, "SCMP_ACT_WHATEVER")
	garbage := file(t, "garbage.json", "{")
	callgateRan(t, "profile", "--base", garbage).fails(t, garbage)
}
