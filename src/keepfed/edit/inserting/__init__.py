"""Adding a setting where none is written: beside what belongs to it, in the indentation, the joints and the line ends found there."""
