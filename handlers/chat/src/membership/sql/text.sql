select app.conversation_text(conversation) from app.conversations as conversation where conversation.id = $1::uuid
