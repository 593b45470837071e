"""What clients send and what they get: media by URL, inline and as uploads, checked; clips by signed URLs."""
