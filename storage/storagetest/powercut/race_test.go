//go:build linux && (amd64 || arm64) && race

package powercut

// With the race detector the program and the disk are several times slower.
const shortCuts, shortImages = 4, 2
