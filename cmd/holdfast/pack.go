//go:build pack

package main

import (
	"debug/buildinfo"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// packCommands make what a package has besides the program. They are in builds
// with -tags pack only: the gateway itself is not larger for them.
func packCommands() []*cobra.Command {
	man := &cobra.Command{
		Use: "man DIR", Short: "Write the manual pages", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			date, err := sourceDate()
			if err != nil {
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "holdfast", Manual: "Holdfast", Date: &date}, args[0])
		},
	}
	sbom := &cobra.Command{
		Use: "sbom BINARY VERSION", Short: "Write what a binary is made of (CycloneDX)", Hidden: true, Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return writeSBOM(cmd.OutOrStdout(), args[0], args[1])
		},
	}
	return []*cobra.Command{man, sbom}
}

// sourceDate is the time that everything in a package has, so that it is the
// same whenever it is made.
func sourceDate() (time.Time, error) {
	n, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("read SOURCE_DATE_EPOCH: %w; make package sets it", err)
	}
	return time.Unix(n, 0).UTC(), nil
}

// writeSBOM lists the modules that the linker has put into a binary.
func writeSBOM(w io.Writer, binary, version string) error {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return err
	}
	date, err := sourceDate()
	if err != nil {
		return err
	}
	bom := cdx.NewBOM()
	main := cdx.Component{
		Type: cdx.ComponentTypeApplication, BOMRef: "holdfast", Name: "holdfast", Version: version,
		Licenses:   &cdx.Licenses{{License: &cdx.License{ID: "Apache-2.0"}}},
		Properties: &[]cdx.Property{},
	}
	for _, s := range info.Settings {
		if strings.HasPrefix(s.Key, "GO") || s.Key == "CGO_ENABLED" {
			*main.Properties = append(*main.Properties, cdx.Property{Name: "build:" + s.Key, Value: s.Value})
		}
	}
	bom.Metadata = &cdx.Metadata{Timestamp: date.Format(time.RFC3339), Component: &main}
	goVersion := strings.TrimPrefix(info.GoVersion, "go")
	components := []cdx.Component{{
		Type: cdx.ComponentTypeLibrary, BOMRef: "pkg:golang/std@" + goVersion, Name: "std", Version: goVersion,
		PackageURL: "pkg:golang/std@" + goVersion,
	}}
	for _, m := range info.Deps {
		components = append(components, component(m))
	}
	bom.Components = &components
	var refs []string
	for _, c := range components {
		refs = append(refs, c.BOMRef)
	}
	bom.Dependencies = &[]cdx.Dependency{{Ref: main.BOMRef, Dependencies: &refs}}
	return cdx.NewBOMEncoder(w, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bom)
}

// component is one module. One that is built from a changed copy is named as
// what it was made of, and says so.
func component(m *debug.Module) cdx.Component {
	purl := "pkg:golang/" + m.Path + "@" + m.Version
	c := cdx.Component{Type: cdx.ComponentTypeLibrary, BOMRef: purl, Name: m.Path, Version: m.Version, PackageURL: purl}
	sum := m.Sum
	if m.Replace != nil {
		sum = m.Replace.Sum
		c.Pedigree = &cdx.Pedigree{
			Ancestors: &[]cdx.Component{{Type: cdx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: purl}},
			Notes:     "built from a corrected copy; the corrections are in the sources of holdfast",
		}
		c.Modified = new(bool)
		*c.Modified = true
	}
	if sum != "" {
		c.Properties = &[]cdx.Property{{Name: "go:sum", Value: sum}}
	}
	return c
}
