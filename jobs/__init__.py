"""What runs on the rented machine, and the two JSON documents that cross the wire."""
