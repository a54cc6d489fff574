//go:build linux && (amd64 || arm64) && !race

package powercut

const shortCuts, shortImages = 14, 3
