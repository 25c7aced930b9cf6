"""What a recipe will cost, predicted before any weights are loaded: time in evaluations, memory, disk, licences."""
