package wire

// What members say of panels, the agreed sets of witnesses; see internal/panel, which has the rules. Here are only their bytes.

// Origin tells the panels of one founding from those of all others: a cluster is formed by members that began alone, each
// with an origin of its own. The zero value is no origin.
type Origin struct {
	Era     uint64 // one more for each time that members gave up a panel that had no majority any more
	Founded int64  // nanoseconds of the founder's wall clock; it only orders origins
	Name    string // of the founder
}

// PanelID names one panel. Two panels with one PanelID are equal.
type PanelID struct {
	Origin Origin
	Number uint64
}

// Panel is a panel as it travels. Number is 0 in the zero value, which is no panel.
type Panel struct {
	Origin    Origin
	Number    uint64
	Witnesses []string
	Members   int
	Successor Origin
}

// AcceptedPanel is what a witness has accepted as the next panel. The zero value is nothing.
type AcceptedPanel struct {
	Ballot Ballot
	Panel  Panel
}

// PanelWord is what a member says of its own panel. The zero value says nothing: the member is of a version without panels.
type PanelWord struct {
	ID       PanelID
	Panel    Panel // none when the one that is told has named the same ID
	Accepted AcceptedPanel
}

// PanelRequest asks a witness to promise a ballot, or to accept a panel.
type PanelRequest struct {
	ID     PanelID // of the panel that is to be followed
	Ballot Ballot
	Panel  Panel // to be accepted; none asks for a promise
}

// PanelAnswer answers a PanelRequest.
type PanelAnswer struct {
	Yes      bool   // promised, or accepted
	Promised Ballot // no: the highest ballot that was promised, or none when that is not the reason
	Word     PanelWord
}

func AppendPanelRequest(b []byte, q *PanelRequest) []byte {
	w := beginControl(b, byte(KindPanel))
	w.panelID(q.ID)
	w.ballot(q.Ballot)
	w.panel(&q.Panel)
	return w.end()
}

func DecodePanelRequest(b []byte) (PanelRequest, error) {
	r := readControl(b, KindPanel, nil)
	q := PanelRequest{ID: r.panelID(), Ballot: r.ballot(), Panel: r.panel()}
	return decoded(&r, "panel request", q)
}

func AppendPanelAnswer(b []byte, a *PanelAnswer) []byte {
	w := beginControl(b, byte(StatusDone))
	w.byte(BoolByte(a.Yes))
	w.ballot(a.Promised)
	w.panelWord(&a.Word)
	return w.end()
}

func DecodePanelAnswer(b []byte) (PanelAnswer, error) {
	r := readControlAnswer(b, nil)
	a := PanelAnswer{Yes: r.byte()&1 != 0, Promised: r.ballot(), Word: r.panelWord()}
	return decoded(&r, "panel answer", a)
}

// Goodbye is what a member says last of the panels in which it took part.
type Goodbye struct {
	ID       PanelID // of the highest panel that it has adopted or accepted
	Promised Ballot  // the highest ballot that it has promised
}

// AppendGoodbye appends a goodbye as it travels in gossip, where nothing but its place says what it is.
func AppendGoodbye(b []byte, g *Goodbye) []byte {
	w := beginControl(b, byte(KindPanel))
	w.panelID(g.ID)
	w.ballot(g.Promised)
	return w.end()
}

func DecodeGoodbye(b []byte) (Goodbye, error) {
	r := readControl(b, KindPanel, nil)
	g := Goodbye{ID: r.panelID(), Promised: r.ballot()}
	return decoded(&r, "goodbye", g)
}

func (w *controlWriter) origin(o Origin) {
	w.uvarint(o.Era)
	w.digest(uint64(o.Founded))
	w.name(o.Name)
}

func (r *controlReader) origin() Origin {
	return Origin{Era: r.uvarint(), Founded: int64(r.digest()), Name: r.name()}
}

func (w *controlWriter) panelID(id PanelID) {
	w.origin(id.Origin)
	w.uvarint(id.Number)
}

func (r *controlReader) panelID() PanelID { return PanelID{Origin: r.origin(), Number: r.uvarint()} }

// panel writes a panel: its number first, and for none nothing else.
func (w *controlWriter) panel(p *Panel) {
	w.uvarint(p.Number)
	if p.Number == 0 {
		return
	}
	w.origin(p.Origin)
	w.nameList(p.Witnesses)
	w.count(p.Members)
	w.origin(p.Successor)
}

func (r *controlReader) panel() Panel {
	p := Panel{Number: r.uvarint()}
	if p.Number == 0 {
		return p
	}
	p.Origin, p.Witnesses, p.Members, p.Successor = r.origin(), r.nameList(), int(r.uint32()), r.origin()
	return p
}

func (w *controlWriter) panelWord(p *PanelWord) {
	w.panelID(p.ID)
	w.panel(&p.Panel)
	w.panel(&p.Accepted.Panel)
	if p.Accepted.Panel.Number != 0 {
		w.ballot(p.Accepted.Ballot)
	}
}

func (r *controlReader) panelWord() PanelWord {
	p := PanelWord{ID: r.panelID(), Panel: r.panel()}
	p.Accepted.Panel = r.panel()
	if p.Accepted.Panel.Number != 0 {
		p.Accepted.Ballot = r.ballot()
	}
	return p
}
