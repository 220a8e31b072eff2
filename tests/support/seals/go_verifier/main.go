// Verifies an export of CEF lines without a line of siemrelay's: with Go's own libraries for signed
// notes and transparency logs, golang.org/x/mod/sumdb, note and tlog.
//
// The argument is the verifier's key, standard input the export, in the order of its numbers. Of
// each seal the signature is checked, that its tally is the signed one, that its root is the one of
// all messages before it, and that this tree proves the one of the seal before and each message
// between them. Standard output is a line for each seal: origin, size and root.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

var (
	message = regexp.MustCompile(`CEF:\d\|.*`)
	number  = regexp.MustCompile(`\|siemrelayN=[a-z2-7]{10}:(\d+)`)
	seal    = regexp.MustCompile(`siemrelay-seal:([A-Za-z0-9_-]+)`)
)

type hashes []tlog.Hash

func (stored hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	found := make([]tlog.Hash, 0, len(indexes))
	for _, index := range indexes {
		if index >= int64(len(stored)) {
			return nil, errors.New("a seal of messages that come later")
		}
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

// The byte strings of a MessagePack array.
func unpack(packed []byte) (parts [][]byte) {
	for at := 1; at < len(packed); {
		var size, head int
		switch packed[at] {
		case 0xc4:
			size, head = int(packed[at+1]), 2
		case 0xc5:
			size, head = int(packed[at+1])<<8|int(packed[at+2]), 3
		default:
			check(fmt.Errorf("no byte string: %x", packed[at]))
		}
		parts = append(parts, packed[at+head:at+head+size])
		at += head + size
	}
	return parts
}

func main() {
	verifier, err := note.NewVerifier(os.Args[1])
	check(err)
	var stored hashes
	var count, before int64
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := message.FindString(lines.Text())
		if found := number.FindStringSubmatch(line); found == nil || found[1] != fmt.Sprint(count) {
			check(fmt.Errorf("message %d is missing", count))
		}
		if word := seal.FindStringSubmatch(line); word != nil {
			before = checkSeal(verifier, word[1], stored, before)
		}
		more, err := tlog.StoredHashes(count, []byte(line), stored)
		check(err)
		stored = append(stored, more...)
		count++
	}
	check(lines.Err())
}

func checkSeal(verifier note.Verifier, word string, stored hashes, before int64) int64 {
	packed, err := base64.RawURLEncoding.DecodeString(word)
	check(err)
	parts := unpack(packed)
	opened, err := note.Open(parts[0], note.VerifierList(verifier))
	check(err)
	text := strings.Split(opened.Text, "\n")
	if digest := sha256.Sum256(parts[1]); text[3] != "tally "+base64.StdEncoding.EncodeToString(digest[:]) {
		check(errors.New("the tally is not the signed one"))
	}
	tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + strings.Join(text[1:], "\n")))
	check(err)
	if tree.N == 0 { // of which older libraries give another root than RFC 6962
		return 0
	}
	root, err := tlog.TreeHash(tree.N, stored)
	check(err)
	if root != tree.Hash {
		check(fmt.Errorf("messages %d to %d are not those that were sent", before, tree.N-1))
	}
	for n := before; n < tree.N; n++ {
		leaf, err := stored.ReadHashes([]int64{tlog.StoredHashIndex(0, n)})
		check(err)
		proof, err := tlog.ProveRecord(tree.N, n, stored)
		check(err)
		check(tlog.CheckRecord(proof, tree.N, root, n, leaf[0]))
	}
	if before > 0 {
		smaller, err := tlog.TreeHash(before, stored)
		check(err)
		proof, err := tlog.ProveTree(tree.N, before, stored)
		check(err)
		check(tlog.CheckTree(proof, tree.N, root, before, smaller))
	}
	fmt.Println(text[0], tree.N, root)
	return tree.N
}
