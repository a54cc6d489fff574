package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"holdfast/configs"
)

// installedConfig is where the package has its configuration.
const installedConfig = "/etc/holdfast/gateway.toml"

// loadToolConfig is loadConfig for the commands that look at a gateway: which
// one is meant without a file is what whichConfig says.
func loadToolConfig(cmd *cobra.Command, path string) (*configs.Config, error) {
	if path == "" {
		path = whichConfig(os.Stat, configs.Default().Gateway.DataDir, installedConfig)
	}
	return loadConfig(cmd, path)
}

// whichConfig is the configuration of a gateway that nobody has named: the
// installed one, unless there is none or one without a configuration has its
// data in this folder; then it is "".
func whichConfig(stat func(string) (os.FileInfo, error), data, installed string) string {
	if _, err := stat(data); err == nil {
		return ""
	}
	if _, err := stat(installed); errors.Is(err, os.ErrNotExist) {
		return ""
	}
	return installed
}
