//go:build !pack

package main

import "github.com/spf13/cobra"

// packCommands are what only the making of packages needs (pack.go).
func packCommands() []*cobra.Command { return nil }
