// Command kadcheck judges what KAD makes with code that is not KAD's: signed notes with golang.org/x/mod/sumdb/note,
// proofs and roots with github.com/transparency-dev/merkle, proof files, policies and cosignatures with filippo.io/torchwood.
//
//	kadcheck note <vkey>  < note          prints {"origin", "size", "root"} of the checkpoint, if the note verifies
//	kadcheck proofs       < JSON lines    prints "ok" or "no: <why>" for each case, in order
//	kadcheck root         < JSON list     prints the RFC 6962 root (hex) over leaves given in hex
//	kadcheck tlog-proof <policy file> <leaf hash, hex>  < proof   prints "ok" if filippo.io/torchwood believes the C2SP tlog-proof
//
// Exit status 1: the note does not verify. 2: what was asked cannot be understood.
package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"filippo.io/torchwood"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

var errUsage = errors.New("usage: kadcheck note <vkey> | proofs | root | tlog-proof <policy file> <leaf hash>")

// hash is written in hex.
type hash []byte

func (h *hash) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// proofCase is one inclusion proof (Leaf, Index, Size, Root) or consistency proof (Old, OldRoot, Size, Root).
type proofCase struct {
	Kind    string `json:"kind"`
	Index   uint64 `json:"index"`
	Leaf    hash   `json:"leaf"`
	Old     uint64 `json:"old"`
	OldRoot hash   `json:"old_root"`
	Size    uint64 `json:"size"`
	Root    hash   `json:"root"`
	Proof   []hash `json:"proof"`
}

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		var refused *note.UnverifiedNoteError
		var invalid *note.InvalidSignatureError
		if errors.As(err, &refused) || errors.As(err, &invalid) || errors.Is(err, errRefused) {
			os.Exit(1)
		}
		os.Exit(2)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	switch {
	case len(args) == 2 && args[0] == "note":
		return openNote(args[1], in, out)
	case len(args) == 1 && args[0] == "proofs":
		return checkProofs(in, out)
	case len(args) == 1 && args[0] == "root":
		return computeRoot(in, out)
	case len(args) == 3 && args[0] == "tlog-proof":
		return checkTlogProof(args[1], args[2], in, out)
	}
	return errUsage
}

// errRefused is a proof that does not hold.
var errRefused = errors.New("refused")

// checkTlogProof believes nothing but the policy: whose log, which witnesses, how many of them.
func checkTlogProof(policyFile, leaf string, in io.Reader, out io.Writer) error {
	text, err := os.ReadFile(policyFile)
	if err != nil {
		return err
	}
	policy, err := torchwood.ParsePolicy(text)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	var wanted tlog.Hash
	sum, err := hex.DecodeString(leaf)
	if err != nil || copy(wanted[:], sum) != len(wanted) {
		return errUsage
	}
	if err := torchwood.VerifyProof(policy, wanted, data); err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	_, err = fmt.Fprintln(out, "ok")
	return err
}

func openNote(vkey string, in io.Reader, out io.Writer) error {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	opened, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		return err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return fmt.Errorf("not a checkpoint: %q", opened.Text)
	}
	size, err := strconv.ParseUint(lines[1], 10, 64)
	if err != nil {
		return err
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(map[string]any{"origin": lines[0], "size": size, "root": hex.EncodeToString(root)})
}

func checkProofs(in io.Reader, out io.Writer) error {
	decoder := json.NewDecoder(in)
	for {
		var c proofCase
		if err := decoder.Decode(&c); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		verdict := "ok"
		if err := c.verify(); err != nil {
			verdict = "no: " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		if _, err := fmt.Fprintln(out, verdict); err != nil {
			return err
		}
	}
}

func (c *proofCase) verify() error {
	hashes := make([][]byte, len(c.Proof))
	for i, h := range c.Proof {
		hashes[i] = h
	}
	switch c.Kind {
	case "inclusion":
		return proof.VerifyInclusion(rfc6962.DefaultHasher, c.Index, c.Size, c.Leaf, hashes, c.Root)
	case "consistency":
		return proof.VerifyConsistency(rfc6962.DefaultHasher, c.Old, c.Size, hashes, c.OldRoot, c.Root)
	}
	return fmt.Errorf("unknown kind %q", c.Kind)
}

func computeRoot(in io.Reader, out io.Writer) error {
	var leaves []hash
	if err := json.NewDecoder(in).Decode(&leaves); err != nil {
		return err
	}
	hasher := rfc6962.DefaultHasher
	if len(leaves) == 0 {
		_, err := fmt.Fprintln(out, hex.EncodeToString(hasher.EmptyRoot()))
		return err
	}
	tree := (&compact.RangeFactory{Hash: hasher.HashChildren}).NewEmptyRange(0)
	for _, leaf := range leaves {
		if err := tree.Append(hasher.HashLeaf(leaf), nil); err != nil {
			return err
		}
	}
	root, err := tree.GetRootHash(nil)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, hex.EncodeToString(root))
	return err
}
