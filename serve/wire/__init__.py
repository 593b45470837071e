"""What goes over the wire, in Runway's names: requests as models, answers as dictionaries that are JSON already."""
