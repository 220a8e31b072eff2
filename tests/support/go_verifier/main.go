// Checks a signed note and a tree with Go's own libraries: golang.org/x/mod/sumdb, note and tlog.
//
// Standard input is a JSON object: the verifier's key, a note, and the data of the leaves. Standard
// output is the text of the note, the root hash of the leaves, and whether the root proves every
// leaf and every smaller tree.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type input struct {
	Key    string
	Note   string
	Leaves [][]byte
}

type hashes []tlog.Hash

func (stored hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, 0, len(indexes))
	for _, index := range indexes {
		found = append(found, stored[index])
	}
	return found, nil
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	var in input
	check(json.NewDecoder(os.Stdin).Decode(&in))
	verifier, err := note.NewVerifier(in.Key)
	check(err)
	opened, err := note.Open([]byte(in.Note), note.VerifierList(verifier))
	check(err)
	var stored hashes
	for n, leaf := range in.Leaves {
		more, err := tlog.StoredHashes(int64(n), leaf, stored)
		check(err)
		stored = append(stored, more...)
	}
	size := int64(len(in.Leaves))
	root, err := tlog.TreeHash(size, stored)
	check(err)
	for n := int64(0); n < size; n++ {
		proof, err := tlog.ProveRecord(size, n, stored)
		check(err)
		check(tlog.CheckRecord(proof, size, root, n, tlog.RecordHash(in.Leaves[n])))
		smaller, err := tlog.TreeHash(n+1, stored)
		check(err)
		consistency, err := tlog.ProveTree(size, n+1, stored)
		check(err)
		check(tlog.CheckTree(consistency, size, root, n+1, smaller))
	}
	tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + opened.Text[len(firstLine(opened.Text)):]))
	check(err)
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"text": opened.Text, "root": root.String(), "size": tree.N, "signed": tree.Hash.String(),
	}))
}

func firstLine(text string) string {
	for i, character := range text {
		if character == '\n' {
			return text[:i+1]
		}
	}
	return text
}
