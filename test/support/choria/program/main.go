// The choria of the tests: the stock command line with the agents that its packages keep apart from it. discovery and
// rpcutil come with the Go agent provider; without it a server answers nothing.
package main

import (
	"log"

	"github.com/choria-io/go-choria/cmd"
	"github.com/choria-io/go-choria/plugin"
	agents "github.com/choria-io/go-choria/providers/agent/mcorpc/golang"
	scout "github.com/choria-io/go-choria/scout/agent/scout"
)

func main() {
	log.SetFlags(0)
	for name, register := range map[string]func() error{
		"golangmco": func() error { return plugin.Register("golangmco", agents.ChoriaPlugin()) },
		"scout":     func() error { return plugin.Register("scout", scout.ChoriaPlugin()) },
	} {
		if err := register(); err != nil {
			log.Fatalf("the plugin %s cannot be registered: %v", name, err)
		}
	}
	if err := cmd.ParseCLI(); err != nil {
		log.Fatal(err)
	}
	if err := cmd.Run(); err != nil {
		log.Fatal(err)
	}
}
