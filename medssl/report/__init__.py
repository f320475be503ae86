"""The comparison for people: tables for the screen and for documents, figures, and one self-contained HTML page."""
