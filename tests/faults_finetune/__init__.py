"""Fine-tunes disturbed at random: killed, cancelled, paused, sent twice; money, processes, rows and states hold."""
